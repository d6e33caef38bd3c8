//! The waiting page.

use bytes::Bytes;

use super::standing::Standing;
use crate::base::misfit::Misfit;
use crate::base::name::Name;
use crate::base::negotiate::Language;

/// A waiting page, parsed once and filled in per visitor.
#[derive(Debug)]
pub struct Page {}

impl Page {
    /// The page that comes with Tidegate.
    pub fn builtin() -> Self {
        Self {}
    }

    /// An operator's own page. Placeholders that mean nothing are refused, with the nearest that does.
    pub fn parse(_template: &str) -> Result<Self, Misfit> {
        Ok(Self {})
    }

    /// The page for one visitor.
    pub fn render(&self, _room: &Name, _language: Language, _standing: &Standing) -> Bytes {
        Bytes::new()
    }
}
