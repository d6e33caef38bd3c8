//! A shared limit as it is usually built: every request asks Redis, by one call of a script. What the draws of
//! Tidegate are measured against.
//!
//! It has the build, the allocator and the HTTP of Tidegate, one worker thread and one multiplexed connection to
//! Redis. Every request is answered here: 200 while its key is within the limit, else 429. `/admitted` tells how
//! many were admitted in each second.
//!
//! Usage: `usual BIND REDIS_URL LIMIT_PER_SECOND`
#![expect(
    clippy::disallowed_methods,
    reason = "a program of its own, which has no base/clock.rs"
)]

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::ResponseHeader;
use pingora::prelude::{HttpPeer, Server, http_proxy_service};
use pingora::proxy::{ProxyHttp, Session};
use pingora::server::configuration::ServerConf;
use pingora::{Error as ProxyError, ErrorType};
use redis::aio::MultiplexedConnection;
use redis::{Client, Script};
use tokio::sync::OnceCell;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Two counters, this second's and the one before, in one hash for each key: what most limiters on Redis do.
const SCRIPT: &str = r"
local time = redis.call('TIME')
local second, gone = tonumber(time[1]), tonumber(time[2]) / 1000000
local counts = redis.call('HMGET', KEYS[1], second, second - 1)
local current, before = tonumber(counts[1]) or 0, tonumber(counts[2]) or 0
if current + before * (1 - gone) + 1 > tonumber(ARGV[1]) then return 0 end
redis.call('HINCRBY', KEYS[1], second, 1)
if current == 0 then
  redis.call('HDEL', KEYS[1], second - 2)
  redis.call('EXPIRE', KEYS[1], 3)
end
return 1
";

/// Body of every answer, as long as Tidegate's.
const ADMITTED: &[u8] = &[b'u'; 128];
const LIMITED: &[u8] = &[b'x'; 200];

struct Usual {
    client: Client,
    connection: OnceCell<MultiplexedConnection>,
    script: Script,
    limit: u64,
    admitted: Mutex<BTreeMap<u64, u64>>,
}

impl Usual {
    async fn admits(&self, key: &str) -> Result<bool, redis::RedisError> {
        let connect = || self.client.get_multiplexed_async_connection();
        let mut connection = self.connection.get_or_try_init(connect).await?.clone();
        let call = &mut self.script.key(key);
        call.arg(self.limit).invoke_async(&mut connection).await
    }

    fn note(&self) -> Result<(), Box<ProxyError>> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_err(internal)?;
        let mut admitted = self
            .admitted
            .lock()
            .map_err(|_| ProxyError::new(ErrorType::InternalError))?;
        *admitted.entry(since.as_secs()).or_default() += 1;
        Ok(())
    }

    fn report(&self) -> Bytes {
        let mut report = String::new();
        for (second, admitted) in self.admitted.lock().iter().flat_map(|admitted| admitted.iter()) {
            // Writing to a string cannot fail.
            let _written = writeln!(report, "{second} {admitted}");
        }
        report.into()
    }
}

#[async_trait]
impl ProxyHttp for Usual {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn request_filter(&self, session: &mut Session, (): &mut Self::CTX) -> pingora::Result<bool> {
        let uri = &session.req_header().uri;
        let (status, body) = if uri.path() == "/admitted" {
            (200, self.report())
        } else if self.admits(uri.query().unwrap_or("all")).await.map_err(internal)? {
            self.note()?;
            (200, Bytes::from_static(ADMITTED))
        } else {
            (429, Bytes::from_static(LIMITED))
        };
        let mut head = ResponseHeader::build(status, Some(2))?;
        head.insert_header("content-length", body.len().to_string())?;
        session.write_response_header(Box::new(head), false).await?;
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
    let [bind, redis, limit] = arguments.as_slice() else {
        return Err("usage: usual BIND REDIS_URL LIMIT_PER_SECOND".into());
    };
    let conf = ServerConf {
        threads: 1,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let conf = Arc::clone(&server.configuration);
    let usual = Usual {
        client: Client::open(redis.as_str())?,
        connection: OnceCell::new(),
        script: Script::new(SCRIPT),
        limit: limit.parse()?,
        admitted: Mutex::default(),
    };
    let mut service = http_proxy_service(&conf, usual);
    service.add_tcp(bind);
    server.add_service(service);
    server.run_forever();
}
