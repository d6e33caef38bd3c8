//! `response_headers`: to come.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Env, Plugin, Verdict};
use crate::base::exchange::{Effects, Request};
use crate::base::misfit::Misfit;

/// As written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {}

/// As run.
#[derive(Debug)]
pub struct Compiled {}

impl Config {
    pub(super) fn build(self, _env: &Env<'_>) -> Result<Compiled, Vec<Misfit>> {
        Ok(Compiled {})
    }
}

impl Plugin for Compiled {
    fn request<'a>(&'a self, _: &'a Request<'a>, _: &'a mut Effects) -> Verdict<'a> {
        Verdict::Continue
    }
}
