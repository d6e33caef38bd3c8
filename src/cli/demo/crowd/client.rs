//! How a simulated visitor asks: HTTP/1.1 over connections that are shared and kept, with a deadline and a bound for
//! everything, and the few cookies that were set.

use std::net::SocketAddr;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_LENGTH, COOKIE, HOST, SET_COOKIE, USER_AGENT};
use http::{HeaderMap, Method};
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::upstreams::peer::HttpPeer;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// From asking to the last byte of the answer, once there is a connection to ask over.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// How long a connection is kept that nobody uses; less than the gateway keeps it.
const IDLE: Duration = Duration::from_secs(20);

/// Bytes of an answer that are read.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Cookies that a visitor keeps.
const COOKIES_MAX: usize = 8;

/// A few connections to the gateway.
pub(super) struct Client {
    connector: Connector,
    peer: HttpPeer,
    host: String,
    places: Semaphore,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) body: Vec<u8>,
}

/// Cookies, by name.
#[derive(Debug, Default)]
pub(super) struct Jar(Vec<(String, String)>);

impl Client {
    /// A client of this gateway with so many connections at once.
    pub(super) fn new(gateway: SocketAddr, connections: usize) -> Self {
        Self {
            connector: Connector::new(None),
            peer: HttpPeer::new(gateway, false, String::new()),
            host: gateway.to_string(),
            places: Semaphore::new(connections),
        }
    }

    /// Asks for something without a body; none when no answer came whole and in time.
    pub(super) async fn ask(&self, method: &Method, path: &str, jar: &mut Jar) -> Option<Answer> {
        let _place = self.places.acquire().await.ok()?;
        // The exchange is boxed so that a visitor who waits is small.
        let exchange = Box::pin(self.exchange(method, path, jar));
        match timeout(ANSWERED_WITHIN, exchange).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                log::debug!("a visitor got no answer: {error}");
                None
            }
            Err(_) => None,
        }
    }

    async fn exchange(&self, method: &Method, path: &str, jar: &mut Jar) -> pingora::Result<Option<Answer>> {
        let head = self.head(method, path, jar)?;
        let (mut connection, _) = self.connector.get_http_session(&self.peer).await?;
        connection.write_request_header(Box::new(head)).await?;
        connection.finish_request_body().await?;
        connection.read_response_header().await?;
        if let Some(head) = connection.response_header() {
            jar.take(&head.headers);
        }
        let mut body = Vec::new();
        while let Some(piece) = connection.read_response_body().await? {
            if body.len() + piece.len() > BODY_BYTES_MAX {
                return Ok(None);
            }
            body.extend_from_slice(&piece);
        }
        self.connector
            .release_http_session(connection, &self.peer, Some(IDLE))
            .await;
        Ok(Some(Answer { body }))
    }

    fn head(&self, method: &Method, path: &str, jar: &Jar) -> pingora::Result<RequestHeader> {
        let mut head = RequestHeader::build(method.clone(), path.as_bytes(), None)?;
        head.insert_header(HOST, self.host.as_str())?;
        head.insert_header(USER_AGENT, "tidegate-demo-crowd")?;
        head.insert_header(ACCEPT, "application/json")?;
        head.insert_header(COOKIE, jar.header())?;
        if *method == Method::POST {
            head.insert_header(CONTENT_LENGTH, "0")?;
        }
        Ok(head)
    }
}

impl Jar {
    /// Keeps a cookie in place of another of its name. One too many is not kept.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.0.retain(|(known, _)| known != name);
        if !value.is_empty() && self.0.len() < COOKIES_MAX {
            self.0.push((name.to_owned(), value.to_owned()));
        }
    }

    /// Keeps what an answer sets. A cookie set to nothing is forgotten; how long one lives does not matter to a visitor
    /// who is gone in a minute.
    fn take(&mut self, headers: &HeaderMap) {
        let set = headers
            .get_all(SET_COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok());
        for (name, rest) in set.filter_map(|text| text.split_once('=')) {
            self.set(name.trim(), rest.split(';').next().unwrap_or_default());
        }
    }

    fn header(&self) -> String {
        let pairs: Vec<_> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn cookies_are_kept_replaced_and_forgotten() {
        let mut jar = Jar::default();
        jar.set("a", "1");
        let mut headers = HeaderMap::new();
        headers.append(
            SET_COOKIE,
            HeaderValue::from_static("ticket=x=y; Path=/; Max-Age=5; HttpOnly"),
        );
        headers.append(SET_COOKIE, HeaderValue::from_static("a=2"));
        jar.take(&headers);
        assert_eq!(jar.header(), "ticket=x=y; a=2");
        headers.clear();
        headers.append(SET_COOKIE, HeaderValue::from_static("ticket=; Path=/; Max-Age=0"));
        jar.take(&headers);
        assert_eq!(jar.header(), "a=2");
    }

    #[test]
    fn a_jar_holds_so_many_and_no_more() {
        let mut jar = Jar::default();
        for number in 0..100 {
            jar.set(&format!("c{number}"), "1");
        }
        assert_eq!(jar.0.len(), COOKIES_MAX);
    }
}
