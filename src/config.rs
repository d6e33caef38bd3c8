//! Floor 6: everything between an operator's YAML and values that a plan can be built from.
//!
//! [`load::load`] reads the process file and its rule files, and either gives both as [`raw`] values that have been
//! checked against each other, or every fault of every file at once, each with its line and column. Text becomes a
//! [`tree`] in which every value knows where it stands; [`decode`] fills plain serde types from that tree and keeps
//! going after a fault; [`check`] compares the parts; a [`document::Document`] turns what later stages find into
//! faults as well.
//!
//! [`compile`] makes a plan of them; of rules with faults it finds the other faults. The YAML library is named nowhere
//! but in [`read`].

pub mod certificate;
pub mod check;
pub mod compile;
pub mod decode;
pub mod document;
pub mod fault;
pub mod glob;
pub mod load;
pub mod password;
pub mod raw;
pub mod read;
pub mod schema;
pub mod spelling;
pub mod tree;
