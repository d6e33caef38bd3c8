//! What the operating system knows of this process: processor time, memory, open files, threads. Read from `/proc`
//! when somebody looks, so only on Linux; elsewhere these metrics stay at 0.

use std::fs;

use super::metrics::METRICS;

/// What `/proc/self/stat` counts processor time in, on every architecture this runs on: hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;

/// Where the processor time is in `/proc/self/stat`, counted from behind the name of the program, which may hold
/// anything: user, then system.
const USER_TICKS_AT: usize = 11;

/// When the process started is there too, in ticks since the machine did.
const STARTED_AT: usize = 19;

/// Brings the metrics of the process up to date.
pub fn show() {
    let read = |file: &str| fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let (stat, status) = (read("stat"), read("status"));
    let used = ticks(&stat, USER_TICKS_AT).zip(ticks(&stat, USER_TICKS_AT + 1));
    if let Some((user, system)) = used {
        let spent = user + system - METRICS.process_cpu_seconds_total.get();
        METRICS.process_cpu_seconds_total.inc_by(spent.max(0.0));
    }
    if let Some(kib) = value(&status, "VmRSS:") {
        METRICS.process_resident_memory_bytes.set(kib.saturating_mul(1024));
    }
    if let Some(threads) = value(&status, "Threads:") {
        METRICS.process_threads.set(threads);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        METRICS
            .process_open_fds
            .set(i64::try_from(open.count()).unwrap_or(i64::MAX));
    }
    if let Some(most) = value(&read("limits"), "Max open files") {
        METRICS.process_max_fds.set(most);
    }
}

/// Says once which program this is, and when it started.
pub fn introduce() {
    METRICS
        .build_info
        .with_label_values(&[env!("CARGO_PKG_VERSION")])
        .set(1);
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let booted = value(&read("/proc/stat"), "btime");
    let since_boot = ticks(&read("/proc/self/stat"), STARTED_AT);
    if let Some((booted, since)) = booted.zip(since_boot) {
        METRICS.process_start_time_seconds.set(booted as f64 + since);
    }
}

/// A field of `/proc/self/stat`, in seconds.
fn ticks(stat: &str, at: usize) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: f64 = fields.split_ascii_whitespace().nth(at)?.parse().ok()?;
    Some(ticks / TICKS_PER_SECOND)
}

/// The first number behind a key at the beginning of a line.
fn value(text: &str, key: &str) -> Option<i64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 1 0 0 0 150 25 0 0 20 0 4 0 500 1000 10";
        assert_eq!(ticks(stat, USER_TICKS_AT), Some(1.5));
        assert_eq!(ticks(stat, USER_TICKS_AT + 1), Some(0.25));
        assert_eq!(ticks(stat, STARTED_AT), Some(5.0));
        assert_eq!(ticks("", 0), None);
    }

    #[test]
    fn a_number_is_read_behind_its_key() {
        let status = "Name:\ttidegate\nVmRSS:\t    1234 kB\nThreads:\t7\n";
        assert_eq!(
            (value(status, "VmRSS:"), value(status, "Threads:")),
            (Some(1_234), Some(7))
        );
        let limits = "Max processes 7 7 processes\nMax open files            1024                 4096    files\n";
        assert_eq!(value(limits, "Max open files"), Some(1_024));
        assert_eq!(value("Max open files  unlimited", "Max open files"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_memory_threads_and_files() {
        introduce();
        show();
        show();
        for gauge in [
            &METRICS.process_resident_memory_bytes,
            &METRICS.process_threads,
            &METRICS.process_open_fds,
        ] {
            assert!(gauge.get() > 0);
        }
        assert!(METRICS.process_start_time_seconds.get() > 1e9);
        // To look takes time too: it shows once the kernel has counted a tick of it.
        let mut looks = std::iter::repeat_with(show).take(100_000);
        assert!(looks.any(|()| METRICS.process_cpu_seconds_total.get() > 0.0));
    }
}
