//! The pages of the shop: HTML that works without scripts, pictures or anything else from elsewhere.

/// One hue for the sea, one for what can be done; dark where the visitor's system is.
const STYLE: &str = "
:root { color-scheme: light dark; --page: #eef4f6; --card: #fff; --ink: #12303b; --faint: #547079; --line: #d3e0e4;
  --sea: #0b6478; --act: #c8501e }
@media (prefers-color-scheme: dark) { :root { --page: #0b1b21; --card: #12272f; --ink: #e4f0f3; --faint: #92aeb7;
  --line: #23414b; --sea: #6cc5d9; --act: #d9632f } }
* { box-sizing: border-box }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1.5rem; background: var(--page);
  color: var(--ink); font: 1.0625rem/1.55 system-ui, sans-serif }
main { width: min(34rem, 100%); overflow: hidden; background: var(--card); border: 1px solid var(--line);
  border-radius: .75rem; padding: 2.25rem 2.25rem 1.5rem; box-shadow: inset 0 6px var(--sea) }
.over { margin: 0; color: var(--sea); font-weight: 600; letter-spacing: .04em }
h1 { margin: .25rem 0 1rem; font-size: 2rem; line-height: 1.15; text-wrap: balance }
.figure { display: block; font-size: 2.75rem; font-weight: 700; line-height: 1.1; font-variant-numeric: tabular-nums }
.do { display: inline-block; margin: .75rem 0 .5rem; padding: .7rem 1.4rem; border: 0; border-radius: .5rem;
  background: var(--act); color: #fff; font: inherit; font-weight: 600; text-decoration: none; cursor: pointer }
.do:focus-visible, a:focus-visible { outline: 3px solid var(--sea); outline-offset: 3px }
a { color: var(--sea) }
footer { margin-top: 1.5rem; padding-top: 1rem; border-top: 1px solid var(--line); color: var(--faint);
  font-size: .9rem }";

/// The page in front of the doors.
pub(super) fn landing(left: u32, standing: &str) -> String {
    let action = if left == 0 {
        "<p>Sold out: every seat has gone."
    } else {
        "<p><a class=do href=/tickets>Get a ticket</a>"
    };
    page(
        "The Tide, live at the harbour",
        &format!(
            "<p><span class=figure>{}</span> of {} seats are left. The doors are open.{action}",
            grouped(left),
            grouped(super::SEATS)
        ),
        standing,
    )
}

/// Inside.
pub(super) fn tickets(left: u32, standing: &str) -> String {
    if left == 0 {
        return page(
            "Sold out",
            "<p>Every seat has gone.<p><a href=/>Back to the doors</a>",
            standing,
        );
    }
    let buy = "<form method=post action=/tickets/buy><button class=do>Buy a seat</button></form>";
    page(
        "You are in",
        &format!(
            "<p><span class=figure>{}</span> seats left. {buy}<p><a href=/>Back to the doors</a>",
            grouped(left)
        ),
        standing,
    )
}

/// After a seat was bought.
pub(super) fn thanks(seat: u32, left: u32) -> String {
    let (seat, left) = (grouped(seat), grouped(left));
    page(
        "Enjoy the show",
        &format!("<p>This seat is yours: <span class=figure>{seat}</span><p><a href=/tickets>One more</a>"),
        &format!("{left} seats are left."),
    )
}

/// When the shop fails.
pub(super) fn overrun(standing: &str) -> String {
    page(
        "The shop is overrun",
        "<p>Too many people are inside at once, and your page got lost among them.<p><a class=do href=/tickets>Try \
         again</a>",
        standing,
    )
}

/// A sentence.
pub(super) fn plain(title: &str, text: &str) -> String {
    page(title, &format!("<p>{text}<p><a href=/>Back to the doors</a>"), "")
}

/// 12345 as `12,345`.
pub(in super::super) fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `title`, `body` and `foot` are ours; nothing that a visitor sent is ever shown.
fn page(title: &str, body: &str, foot: &str) -> String {
    let foot = if foot.is_empty() {
        String::new()
    } else {
        format!("<footer>{foot}</footer>")
    };
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
         <title>{title}</title><link rel=icon href=data:,><style>{STYLE}</style>\
         <main><p class=over>Harbour Tickets<h1>{title}</h1>{body}{foot}</main></html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_stand_in_threes() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (123_456, "123,456"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn the_landing_page_leads_to_the_tickets_while_there_are_any() {
        assert!(landing(3, "").contains("href=/tickets"));
        assert!(!landing(0, "").contains("href=/tickets"));
    }
}
