//! An operator's own page: a template in the syntax of Jinja, tried in every situation before it is taken.
//!
//! Decides what a template may know and do: the variables of one visitor, the texts of the builtin page, the operator's
//! own values, conditions, loops, and a handful of filters. It can include nothing, so what was checked is what runs.
//! Scripts and style sheets are taken out before the engine sees them: braces in them mean nothing to it, and they
//! arrive as they were hashed.
//!
//! Whole numbers are printed with their thousands marked, as the builtin page does it; `|plain` prints digits only.

mod trial;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::HeaderValue;
use minijinja::value::{Enumerator, Object, Value};
use minijinja::{AutoEscape, Environment, UndefinedBehavior, escape_formatter, filters, tests};

use super::cut::pieces;
use super::inline::{self, Inline};
use super::slot::{self, Slot, View};
use super::{Sheet, TEMPLATE_BYTES_MAX, TemplateFault, words};
use crate::base::name::Name;
use crate::base::negotiate::Language;
use crate::room::standing::Standing;

/// Steps of the engine that one page may take: some ten for each placeholder of the largest template.
const STEPS_MAX: u64 = 200_000;

/// How deep macros may call each other.
const DEPTH_MAX: usize = 50;

/// The only template of an environment.
const PAGE: &str = "page";

/// Before the number of a script or style sheet, in the name that stands for it.
const INLINE: &str = "__inline_";

/// A template that was tried.
pub(super) struct Own {
    engine: Environment<'static>,
    csp: HeaderValue,
    vars: Value,
    inlines: Arc<[Value]>,
    /// Whether a failure was told already; a page is asked for too often to tell each.
    told: AtomicBool,
}

impl Own {
    pub(super) fn load(template: &str, vars: &BTreeMap<String, String>) -> Result<Self, TemplateFault> {
        let size = template.len();
        if size > TEMPLATE_BYTES_MAX {
            let message = format!(
                "a page of {size} bytes is too large to send to everyone who waits; the most is {TEMPLATE_BYTES_MAX}"
            );
            return Err(TemplateFault::at("", 0, message));
        }
        let inlines = inline::find(template)?;
        inlines
            .iter()
            .try_for_each(|inline| trial::holds_no_value(template, inline))?;
        let blanked = blanked(template, &inlines);
        trial::is_whole(&blanked)?;
        let mut engine = engine();
        engine
            .add_template_owned(PAGE, masked(template, &inlines))
            .map_err(|error| trial::fault(&error))?;
        let own = Self {
            engine,
            csp: inline::policy(&inlines)?,
            vars: Value::from_pairs(vars.iter().map(|(name, value)| (name.clone(), value.clone()))),
            inlines: inlines
                .iter()
                .map(|inline| Value::from_safe_string(inline.content.to_owned()))
                .collect(),
            told: AtomicBool::new(false),
        };
        trial::names(&own, &blanked, vars)?;
        trial::situations(&own)?;
        Ok(own)
    }

    /// The page for one visitor; none when it fails after all.
    pub(super) fn render(&self, view: &View<'_>) -> Option<Sheet> {
        match self.write(view) {
            Ok(page) => Some(Sheet {
                body: page.into(),
                csp: self.csp.clone(),
            }),
            Err(error) => {
                if !self.told.swap(true, Ordering::Relaxed) {
                    let (room, line) = (view.room, error.line().unwrap_or(1));
                    log::warn!("the page of room {room} failed at line {line}, the builtin one is shown: {error}");
                }
                None
            }
        }
    }

    fn write(&self, view: &View<'_>) -> Result<Vec<u8>, minijinja::Error> {
        let seen = Seen {
            room: view.room.clone(),
            language: view.language,
            standing: *view.standing,
            queue_prefix: view.queue_prefix.to_owned(),
            abandon_after: view.abandon_after,
            vars: self.vars.clone(),
            inlines: Arc::clone(&self.inlines),
        };
        let mut page = Bounded(Vec::new());
        let template = self.engine.get_template(PAGE)?;
        template.render_captured_to(Value::from_object(seen), &mut page)?;
        Ok(page.0)
    }
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Own(..)")
    }
}

/// An engine that knows no more than is written here: nothing that includes, repeats at length, or reads a clock.
fn engine() -> Environment<'static> {
    let mut engine = Environment::empty();
    engine.set_auto_escape_callback(|_| AutoEscape::Html);
    engine.set_undefined_behavior(UndefinedBehavior::Strict);
    engine.set_fuel(Some(STEPS_MAX));
    engine.set_recursion_limit(DEPTH_MAX);
    engine.set_formatter(|out, state, value| match value.as_i64() {
        None if value.is_none() => Ok(out.write_str("–")?),
        Some(_) if value.is_integer() => Ok(out.write_str(&grouped(value))?),
        _ => escape_formatter(out, state, value),
    });
    engine.add_filter("plain", |value: Value| value.to_string());
    engine.add_filter("default", filters::default);
    engine.add_filter("upper", filters::upper);
    engine.add_filter("lower", filters::lower);
    engine.add_filter("trim", filters::trim);
    engine.add_filter("replace", filters::replace);
    engine.add_filter("round", filters::round);
    engine.add_filter("int", filters::int);
    engine.add_test("defined", tests::is_defined);
    engine.add_test("none", tests::is_none);
    engine
}

fn grouped(value: &Value) -> String {
    let mut text = String::new();
    match u64::try_from(value.clone()) {
        Ok(count) => words::push_count(count, &mut text),
        Err(_) => text = value.to_string(),
    }
    text
}

/// The template with a name in the place of each script and style sheet, on as many lines as before.
fn masked(template: &str, inlines: &[Inline<'_>]) -> String {
    let mut masked = String::with_capacity(template.len());
    let mut at = 0;
    for (index, inline) in inlines.iter().enumerate() {
        let lines = "\n".repeat(inline.content.matches('\n').count());
        masked.push_str(&template[at..inline.range.start]);
        masked.push_str(&format!("{{{{ {INLINE}{index}{lines} }}}}"));
        at = inline.range.end;
    }
    masked.push_str(&template[at..]);
    masked
}

/// The template without its scripts and style sheets, every other byte where it was.
fn blanked(template: &str, inlines: &[Inline<'_>]) -> String {
    let mut blanked = String::with_capacity(template.len());
    let mut at = 0;
    for inline in inlines {
        blanked.push_str(&template[at..inline.range.start]);
        let blank = |byte| if byte == b'\n' { '\n' } else { ' ' };
        blanked.extend(inline.content.bytes().map(blank));
        at = inline.range.end;
    }
    blanked.push_str(&template[at..]);
    blanked
}

/// What a template sees: nothing is written before it is asked for.
#[derive(Debug)]
struct Seen {
    room: Name,
    language: Language,
    standing: Standing,
    queue_prefix: String,
    abandon_after: Duration,
    vars: Value,
    inlines: Arc<[Value]>,
}

impl Seen {
    fn view(&self) -> View<'_> {
        View {
            room: &self.room,
            language: self.language,
            standing: &self.standing,
            queue_prefix: &self.queue_prefix,
            abandon_after: self.abandon_after,
        }
    }

    fn value(&self, value: slot::Value) -> Value {
        if let Some(number) = value.number(&self.standing) {
            return number.map_or(Value::from(()), Value::from);
        }
        let mut text = String::new();
        value.fill(&self.view(), &mut text);
        Value::from_safe_string(text)
    }
}

impl Object for Seen {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let name = key.as_str()?;
        if let Some(index) = name.strip_prefix(INLINE) {
            return self.inlines.get(index.parse::<usize>().ok()?).cloned();
        }
        match (name, Slot::named(name)) {
            ("text", _) => Some(Value::from_object(Texts(Arc::clone(self)))),
            ("vars", _) => Some(self.vars.clone()),
            (_, Some(Slot::Value(value))) => Some(self.value(value)),
            (_, Some(Slot::Text(_)) | None) => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }
}

/// The texts of the builtin page with one visitor's values in them.
#[derive(Debug)]
struct Texts(Arc<Seen>);

impl Object for Texts {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let Slot::Text(text) = Slot::named(&format!("text.{}", key.as_str()?))? else {
            return None;
        };
        let mut said = String::new();
        for piece in pieces(text.in_language(self.0.language)) {
            match piece {
                Ok(plain) => slot::push_escaped(plain, &mut said),
                Err(value) => value.fill(&self.0.view(), &mut said),
            }
        }
        Some(Value::from_safe_string(said))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }
}

/// A page in the making that may not grow beyond [`TEMPLATE_BYTES_MAX`].
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > TEMPLATE_BYTES_MAX {
            return Err(io::Error::other(format!("the page passes {TEMPLATE_BYTES_MAX} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
