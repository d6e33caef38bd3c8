//! The page that pays the price of a place: it solves its challenge in a worker, joins, and loads itself again.
//!
//! One document for every room, like the builtin waiting page; an operator's template has no part in it, because it must
//! work. Its worker is a file under the prefix of the queue API, so that the policy need not allow scripts from
//! anywhere else. Without JavaScript it says what comes next, and a Refresh carries that out.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY};
use http::{HeaderName, HeaderValue, StatusCode};

use super::{Sheet, inline, slot, without_indents, words};
use crate::base::exchange::Reply;
use crate::base::name::Name;
use crate::base::negotiate::Language;
use crate::room::price::Price;

/// Where the worker stands, below the prefix of the queue API.
pub(in crate::room) const SOLVER_PATH: &str = "/work.js";

/// The worker. Nothing in it is anybody's, so every cache may keep it; not for long, because an upgrade may change it.
pub(in crate::room) fn solver() -> Reply {
    let script = Bytes::from_static(include_bytes!("work.js"));
    Reply::with_body(StatusCode::OK, "queue_script", "text/javascript; charset=utf-8", script)
        .header(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"))
        .header(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'"))
        .header(
            HeaderName::from_static("x-content-type-options"),
            HeaderValue::from_static("nosniff"),
        )
}

/// The page, with its texts in place.
#[derive(Debug)]
pub(super) struct PricePage {
    english: String,
    korean: String,
    csp: HeaderValue,
}

impl PricePage {
    #[expect(clippy::expect_used, reason = "the page is part of the program, and a test loads it")]
    pub(super) fn load() -> Self {
        let template = without_indents(include_str!("price.html"));
        let inlines = inline::find(&template).expect("the page has whole scripts");
        let policy = inline::policy(&inlines).expect("the page has a policy");
        let policy = policy.to_str().unwrap_or("default-src 'none'");
        Self {
            english: said(&template, Language::English),
            korean: said(&template, Language::Korean),
            csp: HeaderValue::try_from(format!("{policy}; worker-src 'self'")).expect("the policy is one line"),
        }
    }

    pub(super) fn render(&self, room: &Name, language: Language, queue_prefix: &str, price: &Price) -> Sheet {
        let page = match language {
            Language::English => &self.english,
            Language::Korean => &self.korean,
        };
        let refresh = price.again_in.map(|again| {
            let seconds = again.as_millis().div_ceil(1000) + 1;
            format!(r#"<meta http-equiv="refresh" content="{seconds}">"#)
        });
        let values = [
            ("room", room.to_string()),
            ("queue_prefix", queue_prefix.to_owned()),
            ("challenge", price.challenge.clone()),
            ("bits", price.bits.to_string()),
            (
                "no_script",
                if refresh.is_some() { "wait" } else { "refuse" }.to_owned(),
            ),
        ];
        let mut body = page.replace(REFRESH, refresh.as_deref().unwrap_or(""));
        for (name, value) in values {
            let mut escaped = String::new();
            slot::push_escaped(&value, &mut escaped);
            body = body.replace(&format!("{{{{{name}}}}}"), &escaped);
        }
        Sheet {
            body: body.into(),
            csp: self.csp.clone(),
        }
    }
}

/// Where the page says when it loads itself again.
const REFRESH: &str = "{{refresh}}";

fn said(template: &str, language: Language) -> String {
    let mut page = template.replace("{{language}}", language.tag());
    for text in words::PRICE_TEXTS {
        let mut escaped = String::new();
        slot::push_escaped(text.in_language(language), &mut escaped);
        page = page.replace(&format!("{{{{{}}}}}", text.name), &escaped);
    }
    page
}
