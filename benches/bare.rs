//! A proxy on Pingora with nothing on top: what Tidegate is measured against.
//!
//! It has the build, the allocator and the TLS of Tidegate's own release, one worker thread, and no rules, metrics
//! or log. Every request goes to the one upstream, except the paths of files in a folder: these are answered with
//! the file, `/limited` as a 429 and all others as a 200, on a connection that stays open.
//!
//! Usage: `bare UPSTREAM PLAIN_BIND TLS_BIND CERTIFICATE KEY ANSWERS_FOLDER`

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::ResponseHeader;
use pingora::listeners::tls::TlsSettings;
use pingora::prelude::{HttpPeer, Server, http_proxy_service};
use pingora::proxy::{ProxyHttp, Session};
use pingora::server::configuration::ServerConf;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Connections kept open to the upstream: more than the load has clients.
const UPSTREAM_POOL: usize = 256;

struct Bare {
    upstream: SocketAddr,
    answers: HashMap<String, Answer>,
}

struct Answer {
    status: u16,
    content_type: &'static str,
    body: Bytes,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn request_filter(&self, session: &mut Session, (): &mut Self::CTX) -> pingora::Result<bool> {
        let Some(answer) = self.answers.get(session.req_header().uri.path()) else {
            return Ok(false);
        };
        let mut head = ResponseHeader::build(answer.status, Some(3))?;
        head.insert_header("content-type", answer.content_type)?;
        head.insert_header("content-length", answer.body.len().to_string())?;
        session.write_response_header(Box::new(head), false).await?;
        session.write_response_body(Some(answer.body.clone()), true).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, _: &mut Session, (): &mut Self::CTX) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [upstream, plain, tls, certificate, key, answers] = arguments.as_slice() else {
        return Err("usage: bare UPSTREAM PLAIN_BIND TLS_BIND CERTIFICATE KEY ANSWERS_FOLDER".into());
    };
    let conf = ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: UPSTREAM_POOL,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let conf = Arc::clone(&server.configuration);
    let bare = Bare {
        upstream: upstream.parse()?,
        answers: read_answers(answers)?,
    };
    let mut service = http_proxy_service(&conf, bare);
    service.add_tcp(plain);
    service.add_tls_with_settings(tls, None, TlsSettings::intermediate(certificate, key)?);
    server.add_service(service);
    server.run_forever();
}

fn read_answers(folder: &str) -> Result<HashMap<String, Answer>, Box<dyn Error>> {
    let mut answers = HashMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = format!("/{}", entry.file_name().to_string_lossy());
        let status = if path == "/limited" { 429 } else { 200 };
        let content_type = if path == "/page" {
            "text/html; charset=utf-8"
        } else {
            "application/json"
        };
        let body = Bytes::from(fs::read(entry.path())?);
        answers.insert(
            path,
            Answer {
                status,
                content_type,
                body,
            },
        );
    }
    Ok(answers)
}
