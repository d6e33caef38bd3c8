//! The rules of the house, held by a test.
//!
//! A rule that only a reviewer knows is broken in the first hurried week. So the sources are read as text here, and
//! whoever breaks a rule is told the place, the rule and its reason. Every rule comes with snippets that break it
//! and snippets that keep it, because a checker that never fires looks the same as a tree that is clean.
//!
//! What is read is production code: comments, strings and whatever stands under `#[cfg(test)]` are cut away first,
//! unless a rule says that it is about tests.

#[path = "architecture/floors.rs"]
mod floors;
#[path = "architecture/habits.rs"]
mod habits;
#[path = "architecture/plugin_table.rs"]
mod plugin_table;
#[path = "architecture/reach.rs"]
mod reach;
#[path = "architecture/sizes.rs"]
mod sizes;
#[path = "architecture/source.rs"]
mod source;
#[path = "architecture/visibility.rs"]
mod visibility;
