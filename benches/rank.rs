//! A waiting room as it is usually built: whoever joins is added to a sorted set in Redis, and every poll asks it for
//! a rank. What the replicas of Tidegate are measured against.
//!
//! It has the build, the allocator and the HTTP of Tidegate, one worker thread and one multiplexed connection to
//! Redis. It keeps no sign of life, signs nothing and calls nobody, which favours it.
//!
//! Usage: `rank BIND REDIS_URL`
use std::error::Error;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::ResponseHeader;
use pingora::prelude::{HttpPeer, Server, http_proxy_service};
use pingora::proxy::{ProxyHttp, Session};
use pingora::server::configuration::ServerConf;
use pingora::{Error as ProxyError, ErrorType};
use redis::aio::MultiplexedConnection;
use redis::{Client, RedisError};
use tokio::sync::OnceCell;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const QUEUE: &str = "queue";
const NUMBER: &str = "number";
const COOKIE: &str = "ticket=";

struct Rank {
    client: Client,
    connection: OnceCell<MultiplexedConnection>,
}

impl Rank {
    async fn connection(&self) -> Result<MultiplexedConnection, RedisError> {
        let connect = || self.client.get_multiplexed_async_connection();
        self.connection.get_or_try_init(connect).await.cloned()
    }

    /// The ticket of a new visitor.
    async fn join(&self) -> Result<String, RedisError> {
        let mut connection = self.connection().await?;
        let ticket = format!("{:032x}", fastrand::u128(..));
        let number: u64 = redis::cmd("INCR").arg(NUMBER).query_async(&mut connection).await?;
        let mut add = redis::cmd("ZADD");
        add.arg(QUEUE).arg(number).arg(&ticket);
        add.query_async::<()>(&mut connection).await?;
        Ok(ticket)
    }

    async fn ahead(&self, ticket: &str) -> Result<Option<u64>, RedisError> {
        let mut connection = self.connection().await?;
        let mut rank = redis::cmd("ZRANK");
        rank.arg(QUEUE).arg(ticket).query_async(&mut connection).await
    }
}

/// As long as Tidegate's.
fn standing(ahead: u64) -> String {
    format!(
        r#"{{"room":"hall","state":"waiting","position":{},"ahead":{ahead},"behind":0,"eta_seconds":null,"next_poll_ms":60000,"notice":"moving","as_of":"2026-01-01T00:00:00.000000Z"}}"#,
        ahead + 1
    )
}

#[async_trait]
impl ProxyHttp for Rank {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn request_filter(&self, session: &mut Session, (): &mut Self::CTX) -> pingora::Result<bool> {
        let head = session.req_header();
        let cookie = head.headers.get("cookie").and_then(|cookie| cookie.to_str().ok());
        let (cookie, ahead) = match cookie.and_then(|cookie| cookie.strip_prefix(COOKIE)) {
            Some(ticket) => (None, self.ahead(ticket).await.map_err(internal)?),
            None => (Some(self.join().await.map_err(internal)?), Some(0)),
        };
        let status = if ahead.is_some() { 200 } else { 404 };
        let body = Bytes::from(standing(ahead.unwrap_or(0)));
        let mut answer = ResponseHeader::build(status, Some(4))?;
        answer.insert_header("content-type", "application/json")?;
        answer.insert_header("content-length", body.len().to_string())?;
        if let Some(ticket) = cookie {
            answer.insert_header("set-cookie", format!("{COOKIE}{ticket}; Path=/; HttpOnly"))?;
        }
        session.write_response_header(Box::new(answer), false).await?;
        session.write_response_body(Some(body), true).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, _: &mut Session, (): &mut Self::CTX) -> pingora::Result<Box<HttpPeer>> {
        Err(ProxyError::new(ErrorType::ConnectProxyFailure))
    }
}

fn internal(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Box<ProxyError> {
    ProxyError::because(ErrorType::InternalError, "asking the store", cause)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [bind, redis] = arguments.as_slice() else {
        return Err("usage: rank BIND REDIS_URL".into());
    };
    let conf = ServerConf {
        threads: 1,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let conf = Arc::clone(&server.configuration);
    let rank = Rank {
        client: Client::open(redis.as_str())?,
        connection: OnceCell::new(),
    };
    let mut service = http_proxy_service(&conf, rank);
    service.add_tcp(bind);
    server.add_service(service);
    server.run_forever();
}
