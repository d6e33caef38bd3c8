//! The service behind the gateway: a ticket shop that keeps what it sells in memory. It knows nothing of the gateway.

mod page;

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use pingora::apps::ServerApp;
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;
use pingora::protocols::l4::stream::Stream;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;

pub(super) use self::page::grouped;
use super::capacity::{Capacity, Service};
use crate::base::clock::Clock;
use crate::base::negotiate::prefers_html;
use crate::server::drain::stopped;

/// Seats that there are to sell.
pub(super) const SEATS: u32 = 10_000;

/// The cookie by which the shop tells visitors apart.
pub(super) const VISITOR_COOKIE: &str = "shop-visitor";

/// Connections at once. The gateway keeps no more than a few hundred.
const CONNECTIONS: usize = 1024;

/// Pause after a connection could not be accepted, as when file descriptors have run out.
const PAUSE_AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(50);

/// The shop.
pub(super) struct Shop {
    clock: Arc<dyn Clock>,
    stands: u32,
    capacity: Mutex<Capacity>,
    seats: AtomicU32,
    visitors: AtomicU64,
}

/// Serves until it is told to stop; what is under way then is dropped with the run time.
pub(super) async fn serve(socket: TcpListener, shop: Shop, mut stop: watch::Receiver<bool>) {
    let Ok(socket) =
        tokio::net::TcpListener::from_std(socket).inspect_err(|error| log::error!("the shop does not listen: {error}"))
    else {
        return;
    };
    let shop = Arc::new(shop);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = stopped(&mut stop) => return,
        };
        let Ok((stream, _)) = accepted else {
            sleep(PAUSE_AFTER_FAILED_ACCEPT).await;
            continue;
        };
        let (shop, stop) = (Arc::clone(&shop), stop.clone());
        tokio::spawn(async move {
            // It serves the whole life of the connection and gives nothing back.
            drop(shop.process_new(Box::new(Stream::from(stream)), &stop).await);
            drop(place);
        });
    }
}

/// What the shop answers, before it is known whether a person or a program reads it.
struct Answer {
    status: StatusCode,
    page: String,
    document: Value,
}

/// What a request is about.
struct Asked<'a> {
    method: &'a Method,
    path: &'a str,
    visitor: u64,
}

#[async_trait]
impl ServeHttp for Shop {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let head = session.req_header();
        let (visitor, is_new) = self.visitor(&head.headers);
        let asked = Asked {
            method: &head.method,
            path: head.uri.path(),
            visitor,
        };
        let accept = head
            .headers
            .get(http::header::ACCEPT)
            .and_then(|value| value.to_str().ok());
        let (for_people, head_only) = (prefers_html(accept), head.method == Method::HEAD);
        let answer = self.answer(&asked).await;
        let mut response = respond(answer, for_people);
        if head_only {
            response.body_mut().clear();
        }
        if is_new && let Ok(cookie) = cookie(visitor).parse() {
            response.headers_mut().insert(SET_COOKIE, cookie);
        }
        response
    }
}

impl Shop {
    /// A shop with all its seats, that can stand so many visitors at once.
    pub(super) fn new(stands: u32, clock: Arc<dyn Clock>) -> Self {
        let capacity = Mutex::new(Capacity::new(stands, clock.now()));
        Self {
            clock,
            stands,
            capacity,
            seats: AtomicU32::new(SEATS),
            visitors: AtomicU64::new(0),
        }
    }

    async fn answer(&self, asked: &Asked<'_>) -> Answer {
        let reading = matches!(*asked.method, Method::GET | Method::HEAD);
        match asked.path {
            "/" if reading => self.landing(),
            "/tickets" | "/tickets/" if reading => self.guarded(asked.visitor, Self::tickets).await,
            "/tickets/buy" if asked.method == Method::POST => self.guarded(asked.visitor, Self::buy).await,
            "/api/quote" if reading => self.quote(),
            "/office" if reading => self.office(),
            "/healthz" if reading => plain(StatusCode::OK, "ok", "The shop is well."),
            "/" | "/tickets" | "/tickets/" | "/tickets/buy" | "/api/quote" | "/office" | "/healthz" => plain(
                StatusCode::METHOD_NOT_ALLOWED,
                "Not like that",
                "This is asked with another method.",
            ),
            _ => plain(
                StatusCode::NOT_FOUND,
                "Not found",
                "There is no such page in this shop.",
            ),
        }
    }

    /// What costs the shop its strength: as fast as it can, or not at all.
    async fn guarded(&self, visitor: u64, answer: fn(&Self) -> Answer) -> Answer {
        let service = self.with_capacity(|capacity| capacity.arrive(visitor, self.clock.now()));
        let (Service::Answered(took) | Service::Failed(took)) = service;
        sleep(took).await;
        match service {
            Service::Answered(_) => answer(self),
            Service::Failed(_) => self.overrun(),
        }
    }

    fn landing(&self) -> Answer {
        let left = self.seats.load(Ordering::Relaxed);
        Answer {
            status: StatusCode::OK,
            page: page::landing(left, &self.standing()),
            document: json!({ "seats_left": left }),
        }
    }

    fn tickets(&self) -> Answer {
        let left = self.seats.load(Ordering::Relaxed);
        Answer {
            status: StatusCode::OK,
            page: page::tickets(left, &self.standing()),
            document: json!({ "seats_left": left }),
        }
    }

    fn buy(&self) -> Answer {
        let take = |left: u32| left.checked_sub(1);
        match self.seats.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(before) => Answer {
                status: StatusCode::OK,
                page: page::thanks(SEATS - before + 1, before - 1),
                document: json!({ "seat": SEATS - before + 1, "seats_left": before - 1 }),
            },
            Err(_) => plain(StatusCode::CONFLICT, "Sold out", "Every seat has gone."),
        }
    }

    fn quote(&self) -> Answer {
        let left = self.seats.load(Ordering::Relaxed);
        let price = 40 + (SEATS - left) / 100;
        Answer {
            status: StatusCode::OK,
            page: page::plain("Today's price", &format!("A seat is {price} crowns at the moment.")),
            document: json!({ "price": price, "currency": "crown", "seats_left": left }),
        }
    }

    fn office(&self) -> Answer {
        let sold = SEATS - self.seats.load(Ordering::Relaxed);
        let text = format!("{} seats have been sold. {}", grouped(sold), self.standing());
        Answer {
            status: StatusCode::OK,
            page: page::plain("The office", &text),
            document: json!({ "sold": sold }),
        }
    }

    fn overrun(&self) -> Answer {
        Answer {
            status: StatusCode::SERVICE_UNAVAILABLE,
            page: page::overrun(&self.standing()),
            document: json!({ "error": "the shop is overrun" }),
        }
    }

    fn standing(&self) -> String {
        let now = self.with_capacity(|capacity| capacity.visitors_at(self.clock.now()));
        format!(
            "The shop stands {} visitors; {} were here in the last ten seconds.",
            grouped(self.stands),
            grouped(now)
        )
    }

    fn with_capacity<T>(&self, of: impl FnOnce(&mut Capacity) -> T) -> T {
        // Whoever panicked left at worst a visitor uncounted.
        of(&mut self.capacity.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who asks, and whether the shop has just given out the number.
    fn visitor(&self, headers: &HeaderMap) -> (u64, bool) {
        let values = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = values
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='));
        let known = pairs.find(|(name, _)| *name == VISITOR_COOKIE);
        match known.and_then(|(_, number)| u64::from_str_radix(number, 16).ok()) {
            Some(number) => (number, false),
            None => (self.visitors.fetch_add(1, Ordering::Relaxed), true),
        }
    }
}

/// `Set-Cookie` for a visitor.
fn cookie(visitor: u64) -> String {
    format!("{VISITOR_COOKIE}={visitor:x}; Path=/; HttpOnly; SameSite=Lax")
}

fn plain(status: StatusCode, title: &str, text: &str) -> Answer {
    Answer {
        status,
        page: page::plain(title, text),
        document: json!({ "message": text }),
    }
}

fn respond(answer: Answer, for_people: bool) -> Response<Vec<u8>> {
    let (kind, body) = if for_people {
        ("text/html; charset=utf-8", answer.page)
    } else {
        ("application/json", format!("{}\n", answer.document))
    };
    let length = body.len();
    let mut response = Response::new(body.into_bytes());
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // For the sample of a rule that removes it.
    headers.insert("x-powered-by", HeaderValue::from_static("tidegate-demo"));
    if answer.status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{ManualClock, Timestamp};

    fn shop(stands: u32) -> Shop {
        Shop::new(stands, ManualClock::at(Timestamp::from_secs(1_000)))
    }

    async fn ask(shop: &Shop, method: &Method, path: &str, visitor: u64) -> Answer {
        shop.answer(&Asked { method, path, visitor }).await
    }

    #[tokio::test(start_paused = true)]
    async fn every_seat_is_sold_once_and_then_none() {
        let shop = shop(1);
        shop.seats.store(2, Ordering::Relaxed);
        let mut seats = Vec::new();
        for _ in 0..2 {
            let answer = ask(&shop, &Method::POST, "/tickets/buy", 1).await;
            seats.push(answer.document["seat"].clone());
        }
        assert_eq!(seats, [SEATS - 1, SEATS]);
        let answer = ask(&shop, &Method::POST, "/tickets/buy", 1).await;
        assert_eq!(answer.status, StatusCode::CONFLICT);
        let answer = ask(&shop, &Method::GET, "/tickets", 1).await;
        assert!(answer.page.contains("Sold out"), "{}", answer.page);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shop_that_is_overrun_fails_and_its_doorstep_does_not() {
        let shop = shop(1);
        let mut failed = 0;
        for visitor in 0..20 {
            let answer = ask(&shop, &Method::GET, "/tickets", visitor).await;
            failed += u32::from(answer.status == StatusCode::SERVICE_UNAVAILABLE);
        }
        assert!(failed > 10, "{failed}");
        assert_eq!(ask(&shop, &Method::GET, "/", 3).await.status, StatusCode::OK);
    }

    #[tokio::test]
    async fn what_is_not_sold_here_is_refused() {
        let shop = shop(1);
        assert_eq!(
            ask(&shop, &Method::GET, "/shoes", 1).await.status,
            StatusCode::NOT_FOUND
        );
        let answer = ask(&shop, &Method::GET, "/tickets/buy", 1).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    }

    #[test]
    fn a_visitor_keeps_the_number_that_was_given() {
        let shop = shop(1);
        let (first, is_new) = shop.visitor(&HeaderMap::new());
        assert!(is_new);
        assert_ne!(shop.visitor(&HeaderMap::new()).0, first);
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, format!("a=b; {}", cookie(77)).parse().unwrap());
        assert_eq!(shop.visitor(&headers), (77, false));
        headers.insert(COOKIE, HeaderValue::from_static("shop-visitor=<script>"));
        assert!(shop.visitor(&headers).1);
    }

    #[test]
    fn people_get_a_page_and_programs_a_document_of_the_length_that_is_told() {
        for (for_people, begins) in [(true, "<!doctype html>"), (false, "{\"message\":\"B\"}")] {
            let response = respond(plain(StatusCode::OK, "A", "B"), for_people);
            assert!(response.body().starts_with(begins.as_bytes()));
            assert_eq!(response.headers()[CONTENT_LENGTH], response.body().len().to_string());
        }
    }
}
