//! The scripts, each composed of files of `lua/`. A server gets the text once and is called by its SHA from then on.

use std::fmt;

use redis::Cmd;

use crate::limiter::terms::Algorithm;

/// Without a flag a script is refused as a whole by a server that is out of memory, or a replica.
const HEAD: &str = "#!lua\n";

/// A script and what it is called by.
pub(super) struct Script {
    /// As a metric label and in log lines.
    pub(super) name: &'static str,
    pub(super) text: String,
    pub(super) sha: String,
}

impl Script {
    fn new(name: &'static str, parts: &[&str]) -> Self {
        let text = HEAD.to_owned() + &parts.concat();
        let sha = redis::Script::new(&text).get_hash().to_owned();
        Self { name, text, sha }
    }

    /// A gateway's turn at a limit, with the files of its algorithm.
    fn limit_turn(algorithm: &[&str]) -> Self {
        let mut parts = vec![
            include_str!("../../../lua/arithmetic.lua"),
            include_str!("../../../lua/frames.lua"),
            include_str!("../../../lua/limit_scene.lua"),
        ];
        parts.extend(algorithm);
        parts.push(include_str!("../../../lua/limit_turn.lua"));
        Self::new("limit_turn", &parts)
    }

    /// A gateway's turn at a room.
    pub(super) fn room() -> Self {
        Self::new(
            "room_turn",
            &[
                include_str!("../../../lua/arithmetic.lua"),
                include_str!("../../../lua/admission.lua"),
                include_str!("../../../lua/shuffle.lua"),
                include_str!("../../../lua/room_turn.lua"),
                include_str!("../../../lua/room_earlier.lua"),
                include_str!("../../../lua/room_restore.lua"),
                include_str!("../../../lua/room_answer.lua"),
            ],
        )
    }

    /// A sign of life.
    pub(super) fn alive() -> Self {
        Self::new("fleet_alive", &[include_str!("../../../lua/fleet_alive.lua")])
    }

    /// A call under these keys.
    pub(super) fn call(&self, keys: impl IntoIterator<Item = String>, args: &[&[u8]]) -> Call<'_> {
        Call {
            script: self,
            keys: keys.into_iter().collect(),
            args: args.iter().map(|arg| arg.to_vec()).collect(),
        }
    }
}

/// A gateway's turn, one script an algorithm.
pub(super) struct Turns {
    sliding_window: Script,
    fixed_window: Script,
    log: Script,
    token_bucket: Script,
}

impl Turns {
    pub(super) fn new() -> Self {
        let windows = include_str!("../../../lua/windows.lua");
        Self {
            sliding_window: Script::limit_turn(&[windows, include_str!("../../../lua/sliding_window.lua")]),
            fixed_window: Script::limit_turn(&[windows, include_str!("../../../lua/fixed_window.lua")]),
            log: Script::limit_turn(&[include_str!("../../../lua/log.lua")]),
            token_bucket: Script::limit_turn(&[include_str!("../../../lua/token_bucket.lua")]),
        }
    }

    pub(super) const fn of(&self, algorithm: Algorithm) -> &Script {
        match algorithm {
            Algorithm::SlidingWindow => &self.sliding_window,
            Algorithm::FixedWindow => &self.fixed_window,
            Algorithm::Slices(_) | Algorithm::SlidingLog => &self.log,
            Algorithm::TokenBucket { .. } => &self.token_bucket,
        }
    }
}

/// One call of a script.
pub(super) struct Call<'a> {
    script: &'a Script,
    keys: Vec<String>,
    args: Vec<Vec<u8>>,
}

impl Call<'_> {
    /// As it is called usually.
    pub(super) fn by_sha(&self) -> Cmd {
        self.command("EVALSHA", &self.script.sha)
    }

    /// As a server is called that does not have the script: it has it from then on.
    pub(super) fn by_text(&self) -> Cmd {
        self.command("EVAL", &self.script.text)
    }

    fn command(&self, name: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(script).arg(self.keys.len()).arg(&self.keys).arg(&self.args);
        command
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
