//! A crowd in front of waiting rooms: visitors with tickets of their own, who join, ask where they stand, come in and
//! leave. One thread gives some tens of thousands of requests a second, so that the load is not what is measured.
//!
//! It speaks HTTP/1.1 to addresses of this machine, and does what it is told on standard input, a line each. Each line
//! is answered by one of JSON: requests by status, how long it took, percentiles of the time to answer.
//!
//! * `join COUNT CONNECTIONS` lets so many new visitors join, as fast as they are answered;
//! * `poll SECONDS CONNECTIONS` lets the visitors ask for their standing, one after another, as fast;
//! * `get PATH SECONDS CONNECTIONS` asks for something else, as fast;
//! * `open SECONDS CONNECTIONS STAY_MS` lets them live: they ask when they were told to, enter when they are called,
//!   stay for so long on average, and leave. The answer then also counts what must not be seen, see [`Seen`].
//!
//! Usage: `crowd PREFIX ROOM ADDRESS...`: the prefix of the queue API, and the gateways, which take turns.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a program of its own, which has no base/clock.rs and answers on standard output"
)]

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::error::Error;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::sleep;

use self::wire::Wire;

#[path = "crowd/wire.rs"]
mod wire;

type Fault = Box<dyn Error>;

/// Most visitors, most connections, and longest phase: what is asked beyond is refused.
const VISITORS_MAX: usize = 2_000_000;
const CONNECTIONS_MAX: usize = 10_000;
const PHASE_MAX: Duration = Duration::from_secs(600);

/// How often a worker with nothing to do looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A visitor who got no place tries again after this, until there is one.
const REFUSED_WAIT: Duration = Duration::from_millis(200);

/// An answer may be exact as of a little before the moment that it names: so long as a turn may take.
const HEARSAY_MICROS: u64 = 200_000;

/// A request that is made later than this after it was due is late.
const LATE: Duration = Duration::from_secs(1);

/// Visitors take turns in steps of this, so that neighbours do not ask together.
const STRIDE: usize = 7_919;

/// Where the number stands on a ticket of Tidegate's.
const NUMBER_AT: usize = 11;

// What a visitor is

struct Visitor {
    /// The ticket's cookie, `name=value`.
    ticket: Box<str>,
    /// The pass's, while inside.
    pass: Option<Box<str>>,
    number: u64,
    /// As last told, and as of when by the gateway's clock.
    position: u64,
    as_of: u64,
    due: Instant,
    wish: Wish,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    Ask,
    Enter,
    Leave,
}

/// The number on a ticket; none on one that is not Tidegate's.
fn number_of(ticket: &str) -> Option<u64> {
    let (_, slip) = ticket.split_once('=')?;
    let bytes = URL_SAFE_NO_PAD.decode(slip).ok()?;
    let number = bytes.get(NUMBER_AT..NUMBER_AT + 8)?;
    number.try_into().ok().map(u64::from_be_bytes)
}

// A phase

/// What must not be seen, and how much was. What a visitor is told is exact as of the moment that the answer names, so
/// answers are compared by that: one gateway may have heard of the room later than another.
#[derive(Default)]
struct Seen {
    /// The highest number seen called, over time.
    called: VecDeque<(u64, u64)>,
    highest: u64,
    /// Somebody was told to wait as of a moment clearly after one at which a later number had been called.
    inversions: u64,
    /// Somebody was told a larger position than before, as of a later moment.
    grown: u64,
    /// The same as of an earlier moment: by a gateway that the store had not answered meanwhile.
    stale: u64,
    entered: u64,
    left: u64,
    /// Requests made clearly after they were due: then the crowd is too slow.
    late: u64,
}

impl Seen {
    fn called(&mut self, number: u64, as_of: u64) {
        if number > self.highest {
            self.highest = number;
            self.called.push_back((as_of, number));
        }
    }

    fn waiting(&mut self, visitor: &mut Visitor, position: u64, as_of: u64) {
        let known = self.called.iter().rev().find(|(at, _)| *at + HEARSAY_MICROS < as_of);
        self.inversions += u64::from(known.is_some_and(|(_, called)| *called > visitor.number));
        if position > visitor.position {
            *(if as_of >= visitor.as_of {
                &mut self.grown
            } else {
                &mut self.stale
            }) += 1;
        }
        (visitor.position, visitor.as_of) = (position, as_of);
    }
}

#[derive(Default)]
struct Tally {
    statuses: BTreeMap<u16, u64>,
    micros: Vec<u32>,
    faults: BTreeMap<String, u64>,
    seen: Seen,
}

impl Tally {
    fn note(&mut self, status: u16, took: Duration) {
        *self.statuses.entry(status).or_default() += 1;
        self.micros.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }

    fn told(mut self, seconds: f64) -> Value {
        self.micros.sort_unstable();
        let part = |share: f64| {
            let at = (self.micros.len() as f64 * share) as usize;
            self.micros.get(at).map_or(0.0, |micros| f64::from(*micros) / 1e3)
        };
        json!({
            "answered": self.micros.len(), "seconds": seconds, "statuses": self.statuses, "faults": self.faults,
            "p50_ms": part(0.5), "p99_ms": part(0.99),
            "inversions": self.seen.inversions, "grown": self.seen.grown, "stale": self.seen.stale, "entered": self.seen.entered,
            "left": self.seen.left, "highest_called": self.seen.highest, "overdue": self.seen.late,
        })
    }
}

/// What all workers of a phase share.
struct Phase {
    crowd: Rc<Crowd>,
    what: What,
    until: Instant,
    next: Cell<usize>,
    end: usize,
    tally: RefCell<Tally>,
}

enum What {
    Join,
    Poll,
    Get(String),
    Open {
        stay: Duration,
        due: RefCell<BinaryHeap<Reverse<(Instant, usize)>>>,
    },
}

impl Phase {
    fn next(&self) -> Option<usize> {
        let next = self.next.get();
        self.next.set(next + 1);
        (next < self.end && Instant::now() < self.until).then_some(next)
    }

    /// Who is to act next; none as yet, or an end.
    fn due(&self, due: &RefCell<BinaryHeap<Reverse<(Instant, usize)>>>) -> Option<usize> {
        let mut due = due.borrow_mut();
        let Reverse((at, _)) = due.peek()?;
        (*at <= Instant::now()).then(|| due.pop().map(|Reverse((_, visitor))| visitor))?
    }

    async fn work(&self, wire: &mut Wire) -> Result<(), Fault> {
        match &self.what {
            What::Join => {
                while self.next().is_some() {
                    while !self.join(wire).await? && Instant::now() < self.until {
                        sleep(REFUSED_WAIT).await;
                    }
                }
            }
            What::Poll => {
                while let Some(next) = self.next() {
                    let visitor = next.wrapping_mul(STRIDE) % self.crowd.visitors.borrow().len().max(1);
                    self.poll(wire, visitor).await?;
                }
            }
            What::Get(path) => {
                let request = format!("GET {path} HTTP/1.1\r\nhost: crowd\r\n\r\n");
                while self.next().is_some() {
                    let begun = Instant::now();
                    let status = wire.ask(&request).await?.status;
                    self.tally.borrow_mut().note(status, begun.elapsed());
                }
            }
            What::Open { stay, due } => {
                while Instant::now() < self.until {
                    match self.due(due) {
                        Some(visitor) => {
                            if let Some(at) = self.live(wire, visitor, *stay).await? {
                                due.borrow_mut().push(Reverse((at, visitor)));
                            }
                        }
                        None => sleep(LOOK_AGAIN).await,
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether the visitor has a place now.
    async fn join(&self, wire: &mut Wire) -> Result<bool, Fault> {
        let begun = Instant::now();
        let answer = wire.ask(&self.crowd.join).await?;
        self.tally.borrow_mut().note(answer.status, begun.elapsed());
        if answer.status != 200 {
            return Ok(false);
        }
        let ticket = answer.cookie("ticket").ok_or("a join without a ticket")?;
        let wait = Duration::from_millis(answer.number("next_poll_ms").unwrap_or(1_000));
        self.crowd.visitors.borrow_mut().push(Visitor {
            number: number_of(&ticket).unwrap_or(0),
            ticket,
            pass: None,
            position: answer.number("position").unwrap_or(u64::MAX),
            as_of: answer.as_of(),
            due: begun + wait,
            wish: Wish::Ask,
        });
        Ok(true)
    }

    async fn poll(&self, wire: &mut Wire, visitor: usize) -> Result<(), Fault> {
        let request = self
            .crowd
            .request("GET", "status", &self.crowd.visitors.borrow()[visitor].ticket);
        let begun = Instant::now();
        let status = wire.ask(&request).await?.status;
        self.tally.borrow_mut().note(status, begun.elapsed());
        Ok(())
    }

    /// A visitor does what is next, and says when to come back to it; none once it has gone.
    async fn live(&self, wire: &mut Wire, at: usize, stay: Duration) -> Result<Option<Instant>, Fault> {
        let (request, wish) = {
            let visitor = &self.crowd.visitors.borrow()[at];
            let cookie = match &visitor.pass {
                Some(pass) => &format!("{}; {pass}", visitor.ticket),
                None => visitor.ticket.as_ref(),
            };
            let (method, call) = match visitor.wish {
                Wish::Ask => ("GET", "status"),
                Wish::Enter => ("POST", "enter"),
                Wish::Leave => ("POST", "leave"),
            };
            (self.crowd.request(method, call, cookie), visitor.wish)
        };
        let begun = Instant::now();
        let answer = wire.ask(&request).await?;
        let now = Instant::now();
        let visitor = &mut self.crowd.visitors.borrow_mut()[at];
        let tally = &mut *self.tally.borrow_mut();
        tally.note(answer.status, now - begun);
        let seen = &mut tally.seen;
        seen.late += u64::from(begun > visitor.due + LATE);
        let next = match (wish, answer.status) {
            (Wish::Ask, 200) if answer.state() == "waiting" => {
                let position = answer.number("position").unwrap_or(u64::MAX);
                seen.waiting(visitor, position, answer.as_of());
                let wait = answer
                    .number("next_poll_ms")
                    .ok_or("a standing that says no next poll")?;
                Some(now + Duration::from_millis(wait))
            }
            (Wish::Ask, 200) => {
                seen.called(visitor.number, answer.as_of());
                visitor.wish = Wish::Enter;
                Some(now)
            }
            (Wish::Enter, 200) => {
                seen.entered += 1;
                visitor.pass = answer.cookie("pass");
                visitor.wish = Wish::Leave;
                Some(now + stay.mul_f64(0.5 + fastrand::f64()))
            }
            (Wish::Leave, 204) => {
                seen.left += 1;
                None
            }
            // The store is late: as the answer says, again in a while.
            (_, 503) => Some(now + REFUSED_WAIT),
            // Counted by its status; the visitor gives up.
            _ => None,
        };
        visitor.due = next.unwrap_or(now);
        Ok(next)
    }
}

// The crowd

struct Crowd {
    addresses: Vec<SocketAddr>,
    prefix: String,
    join: String,
    visitors: RefCell<Vec<Visitor>>,
    wires: RefCell<Vec<Wire>>,
}

impl Crowd {
    fn request(&self, method: &str, call: &str, cookie: &str) -> String {
        let prefix = &self.prefix;
        format!("{method} {prefix}/{call} HTTP/1.1\r\nhost: crowd\r\ncontent-length: 0\r\ncookie: {cookie}\r\n\r\n")
    }

    /// So many connections, the gateways in turn: those that are there, and new ones.
    async fn connect(&self, count: usize) -> Result<Vec<Wire>, Fault> {
        let mut wires = std::mem::take(&mut *self.wires.borrow_mut());
        for number in wires.len()..count.min(CONNECTIONS_MAX) {
            wires.push(Wire::to(self.addresses[number % self.addresses.len()]).await?);
        }
        let spare = wires.split_off(count.min(wires.len()));
        *self.wires.borrow_mut() = spare;
        Ok(wires)
    }

    async fn run(self: &Rc<Self>, what: What, end: usize, span: Duration, connections: usize) -> Result<Value, Fault> {
        let wires = self.connect(connections).await?;
        let begun = Instant::now();
        let phase = Rc::new(Phase {
            crowd: Rc::clone(self),
            what,
            until: begun + span.min(PHASE_MAX),
            next: Cell::new(0),
            end,
            tally: RefCell::default(),
        });
        let mut workers = JoinSet::new();
        for mut wire in wires {
            let phase = Rc::clone(&phase);
            workers.spawn_local(async move {
                match phase.work(&mut wire).await {
                    Ok(()) => Some(wire),
                    Err(fault) => {
                        *phase.tally.borrow_mut().faults.entry(fault.to_string()).or_default() += 1;
                        None
                    }
                }
            });
        }
        let mut kept: Vec<Wire> = workers.join_all().await.into_iter().flatten().collect();
        kept.append(&mut self.wires.borrow_mut());
        *self.wires.borrow_mut() = kept;
        let seconds = begun.elapsed().as_secs_f64();
        Ok(phase.tally.take().told(seconds))
    }

    /// Who is to act, by when.
    fn dues(&self) -> BinaryHeap<Reverse<(Instant, usize)>> {
        let visitors = self.visitors.borrow();
        let due = visitors.iter().enumerate();
        due.map(|(at, visitor)| Reverse((visitor.due, at))).collect()
    }

    async fn obey(self: &Rc<Self>, line: &str) -> Result<Value, Fault> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let seconds = |text: &str| text.parse().map(Duration::from_secs_f64);
        match words.as_slice() {
            ["join", count, connections] => {
                let room = VISITORS_MAX - self.visitors.borrow().len().min(VISITORS_MAX);
                let count = count.parse::<usize>()?.min(room);
                self.run(What::Join, count, PHASE_MAX, connections.parse()?).await
            }
            ["poll", span, connections] => {
                self.run(What::Poll, usize::MAX, seconds(span)?, connections.parse()?)
                    .await
            }
            ["get", path, span, connections] => {
                let what = What::Get((*path).to_owned());
                self.run(what, usize::MAX, seconds(span)?, connections.parse()?).await
            }
            ["open", span, connections, stay_ms] => {
                let what = What::Open {
                    stay: Duration::from_millis(stay_ms.parse()?),
                    due: RefCell::new(self.dues()),
                };
                self.run(what, usize::MAX, seconds(span)?, connections.parse()?).await
            }
            _ => Err(format!("not a command: {line}").into()),
        }
    }
}

async fn listen(crowd: Rc<Crowd>) -> Result<(), Fault> {
    // Nothing else runs between two commands, so it does no harm to wait for one.
    for line in std::io::stdin().lines() {
        println!("{}", crowd.obey(&line?).await?);
    }
    Ok(())
}

fn main() -> Result<(), Fault> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [prefix, room, addresses @ ..] = arguments.as_slice() else {
        return Err("usage: crowd PREFIX ROOM ADDRESS...".into());
    };
    let addresses: Vec<SocketAddr> = addresses.iter().map(|one| one.parse()).collect::<Result<_, _>>()?;
    if addresses.is_empty() || !addresses.iter().all(|address| address.ip().is_loopback()) {
        return Err("a crowd comes to addresses of this machine only, and to one at least".into());
    }
    let crowd = Rc::new(Crowd {
        join: format!("POST {prefix}/join?room={room} HTTP/1.1\r\nhost: crowd\r\ncontent-length: 0\r\n\r\n"),
        prefix: prefix.clone(),
        addresses,
        visitors: RefCell::default(),
        wires: RefCell::default(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, listen(crowd))
}
