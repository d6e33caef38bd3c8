use std::io::{Read, Seek};

use proptest::prelude::*;

use super::line::tests::record;
use super::*;

/// Longest a test waits for the writer.
const PATIENCE: Duration = Duration::from_secs(20);

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(str::to_owned).collect()
}

fn in_file(format: Format) -> (tempfile::TempDir, PathBuf, AccessLog, JoinHandle<()>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let (log, writer) = AccessLog::new(&Target::File(path.clone()), format);
    (directory, path, log, writer.spawn().unwrap())
}

#[test]
fn every_request_of_every_thread_is_one_line() {
    let (_directory, path, log, writer) = in_file(Format::Json);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let log = log.clone();
            scope.spawn(move || {
                for request in 0..500 {
                    log.log(&Record {
                        bytes_sent: thread * 1000 + request,
                        ..record()
                    });
                }
            });
        }
    });
    drop(log);
    writer.join().unwrap();
    let mut seen: Vec<u64> = lines(&path)
        .iter()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["bytes_sent"]
                .as_u64()
                .unwrap()
        })
        .collect();
    seen.sort_unstable();
    let expected: Vec<u64> = (0..4)
        .flat_map(|thread| (0..500).map(move |request| thread * 1000 + request))
        .collect();
    assert_eq!(seen, expected);
}

#[test]
fn flushing_waits_for_all_that_was_logged_before() {
    let (_directory, path, log, _writer) = in_file(Format::Combined);
    assert!(log.flush(PATIENCE));
    for count in 1..=3 {
        log.log(&record());
        assert!(log.flush(PATIENCE));
        assert_eq!(lines(&path).len(), count);
    }
}

#[test]
fn flushing_gives_up_when_nobody_writes() {
    let (log, _writer) = AccessLog::with_sink(Box::new(io::sink()), None, Format::Json);
    log.log(&record());
    assert!(!log.flush(Duration::from_millis(1)));
}

#[test]
fn a_rotated_file_is_opened_anew_and_loses_nothing() {
    let (directory, path, log, writer) = in_file(Format::Combined);
    let rotated = directory.path().join("access.log.1");
    log.log(&record());
    assert!(log.flush(PATIENCE));
    std::fs::rename(&path, &rotated).unwrap();
    log.log(&record());
    log.reopen();
    assert!(log.flush(PATIENCE));
    log.log(&record());
    drop(log);
    writer.join().unwrap();
    assert_eq!((lines(&rotated).len(), lines(&path).len()), (2, 1));
}

#[test]
fn a_file_that_cannot_be_opened_is_told_at_the_start() {
    let target = Target::File("/nowhere/access.log".into());
    let (_log, writer) = AccessLog::new(&target, Format::Json);
    let error = writer.spawn().unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/access.log: "), "{error}");
}

#[test]
fn a_rehearsal_leaves_everything_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    rehearse(&path).unwrap();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    std::fs::write(&path, "a line\n").unwrap();
    rehearse(&path).unwrap();
    assert_eq!(lines(&path), ["a line"]);
    assert!(
        rehearse(directory.path())
            .unwrap_err()
            .to_string()
            .contains("directory")
    );
    let nowhere = rehearse(&directory.path().join("logs/access.log")).unwrap_err();
    assert!(nowhere.to_string().contains("there is no directory `"), "{nowhere}");
}

#[test]
fn a_full_buffer_drops_lines_and_never_blocks() {
    let queue = Queue::default();
    assert!((0..LINES_MAX).all(|_| queue.push(b"x\n")));
    assert!(!queue.push(b"x\n"));
    let mut batch = Vec::new();
    assert_eq!(queue.take(&mut batch).pushed, LINES_MAX as u64);
    assert_eq!(batch.len(), 2 * LINES_MAX);
    assert!(queue.push(&vec![b'x'; BYTES_MAX]));
    assert!(!queue.push(b"x\n"));
    queue.lock().is_closed = true;
    queue.take(&mut Vec::new());
    assert!(!queue.push(b"x\n"));
}

/// A disk with room for so many bytes.
struct Disk {
    file: File,
    room: Arc<Mutex<usize>>,
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut room = self.room.lock().unwrap();
        let count = bytes.len().min(*room);
        if count == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        *room -= count;
        self.file.write(&bytes[..count])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn after_a_full_disk_lines_are_whole_again() {
    let mut file = tempfile::tempfile().unwrap();
    let room = Arc::new(Mutex::new(7));
    let disk = Disk {
        file: file.try_clone().unwrap(),
        room: Arc::clone(&room),
    };
    let (_log, mut writer) = AccessLog::with_sink(Box::new(disk), None, Format::Json);
    writer.write(b"one\ntwo\nthree\n");
    writer.write(b"four\n");
    *room.lock().unwrap() = 100;
    writer.write(b"five\n");
    file.rewind().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "one\ntwo\nfive\n");
    assert!(!writer.is_failing && !writer.is_torn);
}

#[test]
fn a_line_of_which_only_the_break_was_lost_counts_as_lost() {
    let disk = Disk {
        file: tempfile::tempfile().unwrap(),
        room: Arc::new(Mutex::new(3)),
    };
    let (_log, mut writer) = AccessLog::with_sink(Box::new(disk), None, Format::Json);
    writer.write(b"one\n");
    assert!(writer.is_failing && writer.is_torn);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn so_many_hostile_requests_are_so_many_lines(
        requests in proptest::collection::vec((".{0,40}", proptest::collection::vec(any::<u8>(), 0..40)), 0..40),
    ) {
        for format in [Format::Json, Format::Combined] {
            let (_directory, path, log, writer) = in_file(format);
            for (host, agent) in &requests {
                log.log(&Record { host, path: agent, user_agent: Some(agent), referer: Some(host.as_bytes()), ..record() });
            }
            drop(log);
            writer.join().unwrap();
            let lines = lines(&path);
            prop_assert_eq!(lines.len(), requests.len());
            for line in lines.iter().filter(|_| format == Format::Json) {
                prop_assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{}", line);
            }
        }
    }
}
