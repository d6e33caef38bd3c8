//! nginx as the server behind the gateway: one that is not ours, and has opinions of its own.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::skip;

/// Where Debian has it.
const NGINX: &str = "/usr/sbin/nginx";

/// A running nginx. It is ended when it is dropped.
pub(crate) struct Nginx {
    pub(crate) address: SocketAddr,
    dir: TempDir,
    child: Child,
}

impl Nginx {
    /// Starts nginx with this inside its `server` block, and its files in a directory that holds `files`. None, and
    /// a word on it, where it is not installed.
    pub(crate) fn start(server: &str, files: &[(&str, &str)]) -> Option<Self> {
        if !Path::new(NGINX).exists() {
            skip(&format!("there is no {NGINX}"));
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        // The socket is bound here and handed over, so that nobody can take its port in between, and connections that
        // come before nginx is ready wait in it.
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        std::fs::write(dir.path().join("nginx.conf"), conf(address, server)).unwrap();
        let mut command = Command::new(NGINX);
        command
            .arg("-p")
            .arg(dir.path())
            .args(["-c", "nginx.conf", "-e", "error.log"]);
        command.env("NGINX", "0;").stdin(Stdio::from(OwnedFd::from(socket)));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Some(Self { address, dir, child })
    }

    /// The targets that it was asked for, as it read them.
    pub(crate) fn requests(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.dir.path().join("access.log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // A master that is killed leaves its worker behind; one that is asked takes it along.
        let order = format!("kill -TERM {}", self.child.id());
        drop(Command::new("sh").arg("-c").arg(order).status());
        drop(self.child.wait());
    }
}

fn conf(address: SocketAddr, server: &str) -> String {
    format!(
        "daemon off; worker_processes 1; pid nginx.pid;\n\
         events {{ worker_connections 512; }}\n\
         http {{\n\
           log_format asked '$request_method $request_uri';\n\
           access_log access.log asked;\n\
           default_type text/plain;\n\
           client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;\n\
           server {{ listen {address}; root .; {server} }}\n\
         }}\n"
    )
}
