//! What plugins are tested with: a plain GET, to be changed where a test needs it, and the steps of an example file.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::de::DeserializeOwned;

use super::{Request, Scheme};
use crate::base::clock::Timestamp;
use crate::base::name::Name;

/// What a [`Request`] borrows from.
pub(crate) struct Sample {
    pub(crate) method: Method,
    pub(crate) scheme: Scheme,
    pub(crate) path: &'static str,
    pub(crate) query: Option<&'static str>,
    pub(crate) headers: HeaderMap,
    pub(crate) client_ip: IpAddr,
    pub(crate) route: Name,
}

impl Sample {
    /// `GET https://shop.example.com/cart?item=7` from 192.0.2.7.
    pub(crate) fn new() -> Self {
        Self {
            method: Method::GET,
            scheme: Scheme::Https,
            path: "/cart",
            query: Some("item=7"),
            headers: HeaderMap::new(),
            client_ip: IpAddr::from([192, 0, 2, 7]),
            route: "shop".parse().unwrap(),
        }
    }

    /// The same with one more header.
    pub(crate) fn header(mut self, name: &'static str, value: &'static str) -> Self {
        let name = HeaderName::from_static(name);
        self.headers.append(name, HeaderValue::from_static(value));
        self
    }

    /// The request.
    pub(crate) fn request(&self) -> Request<'_> {
        Request {
            came: Timestamp::from_secs(1_800_000_000),
            now: Timestamp::from_secs(1_800_000_000),
            id: "req-1",
            route: Some(&self.route),
            method: &self.method,
            scheme: self.scheme,
            host: "shop.example.com",
            path: self.path,
            query: self.query,
            headers: &self.headers,
            client_ip: self.client_ip,
        }
    }
}

/// The settings of every step called `plugin` in the chains of a rule file.
pub(crate) fn steps<T: DeserializeOwned>(plugin: &str, rules: &str) -> Vec<T> {
    let rules: serde_yaml::Value = serde_yaml::from_str(rules).unwrap();
    let routes = rules["routes"].as_sequence().unwrap().iter();
    let steps = routes.flat_map(|route| route["chain"].as_sequence().unwrap());
    let settings: Vec<T> = steps
        .filter_map(|step| step.get(plugin))
        .map(|settings| serde_yaml::from_value(settings.clone()).unwrap())
        .collect();
    assert!(!settings.is_empty(), "the file shows no `{plugin}`");
    settings
}
