//! The log of a worker's output, limited in size.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Bytes kept from the beginning of one process's output.
pub(super) const HEAD: usize = 1 << 20;
/// Bytes kept from its end.
pub(super) const TAIL: usize = 1 << 20;
/// Bytes kept of a line that may become a reason.
const LINE: usize = 400;

/// Which of the two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    Stdout,
    Stderr,
}

/// Takes what a worker prints and keeps the first and the last of it.
pub(super) struct Log {
    kept: Arc<Mutex<Kept>>,
    /// Yields nothing and disconnects when both outputs have ended.
    running: Receiver<()>,
}

impl Log {
    /// Appends to the file at `path` what comes from the two pipes, each read by a thread of its own.
    pub(super) fn start(
        path: &Path,
        stdout: impl Read + Send + 'static,
        stderr: impl Read + Send + 'static,
    ) -> io::Result<Log> {
        let file = File::options().create(true).append(true).open(path)?;
        let kept = Arc::new(Mutex::new(Kept::new(Box::new(file))));
        let (sender, running) = channel();
        pump(stdout, Output::Stdout, Arc::clone(&kept), sender.clone());
        pump(stderr, Output::Stderr, Arc::clone(&kept), sender);
        Ok(Log { kept, running })
    }

    /// Waits until the worker's outputs have ended, at most `limit`.
    pub(super) fn wait(&self, limit: Duration) {
        let begin = Instant::now();
        while begin.elapsed() < limit {
            if let Err(RecvTimeoutError::Disconnected) = self.running.recv_timeout(limit - begin.elapsed().min(limit)) {
                return;
            }
        }
    }

    /// The last line on stderr that is not blank, or else on stdout; empty if nothing was printed.
    pub(super) fn last_line(&self) -> String {
        let kept = lock(&self.kept);
        let line = if kept.stderr.last().is_empty() { kept.stdout.last() } else { kept.stderr.last() };
        String::from_utf8_lossy(line).trim().to_string()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        lock(&self.kept).finish();
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn pump(mut pipe: impl Read + Send + 'static, output: Output, kept: Arc<Mutex<Kept>>, running: Sender<()>) {
    std::thread::spawn(move || {
        // Dropped at the end of the thread, which is what the receiver waits for.
        let _running = running;
        let mut chunk = vec![0; 64 << 10];
        loop {
            match pipe.read(&mut chunk) {
                Ok(0) => return,
                Ok(count) => lock(&kept).take(output, &chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
}

/// The output so far.
struct Kept {
    file: Box<dyn Write + Send>,
    /// Bytes written to the file at once.
    head: usize,
    /// The last bytes, to be written at the end.
    tail: VecDeque<u8>,
    /// Bytes dropped between the two.
    cut: u64,
    stdout: LastLine,
    stderr: LastLine,
    finished: bool,
}

impl Kept {
    fn new(file: Box<dyn Write + Send>) -> Kept {
        let (stdout, stderr) = (LastLine::default(), LastLine::default());
        Kept { file, head: 0, tail: VecDeque::new(), cut: 0, stdout, stderr, finished: false }
    }

    fn take(&mut self, output: Output, bytes: &[u8]) {
        match output {
            Output::Stdout => self.stdout.take(bytes),
            Output::Stderr => self.stderr.take(bytes),
        }
        if self.finished {
            return;
        }
        let (now, later) = bytes.split_at(bytes.len().min(HEAD - self.head));
        // A full disk must not stop a measurement for the sake of its log.
        let _ = self.file.write_all(now);
        self.head += now.len();
        self.tail.extend(later);
        let excess = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..excess);
        self.cut += excess as u64;
    }

    /// Writes the tail. What comes later (from a process that escaped) is dropped.
    fn finish(&mut self) {
        if self.cut > 0 {
            let _ = writeln!(self.file, "\n[... {} bytes of output were cut here by dpsgd-bench ...]", self.cut);
        }
        let _ = self.file.write_all(self.tail.make_contiguous());
        self.tail = VecDeque::new();
        self.finished = true;
    }
}

/// The last line that says something, without keeping all the lines before.
#[derive(Default)]
struct LastLine {
    complete: Vec<u8>,
    current: Vec<u8>,
    /// Within the list of calls that a Rust panic prints below its message.
    in_backtrace: bool,
}

impl LastLine {
    fn take(&mut self, bytes: &[u8]) {
        for (index, piece) in bytes.split(|byte| *byte == b'\n').enumerate() {
            if index > 0 {
                self.end_line();
            }
            let room = LINE.saturating_sub(self.current.len());
            self.current.extend_from_slice(&piece[..piece.len().min(room)]);
        }
    }

    fn end_line(&mut self) {
        let line = self.current.trim_ascii();
        let indented = self.current.first().is_some_and(u8::is_ascii_whitespace);
        self.in_backtrace = line == b"stack backtrace:" || (self.in_backtrace && indented);
        if !line.is_empty() && !self.in_backtrace && !line.starts_with(b"note: ") {
            std::mem::swap(&mut self.complete, &mut self.current);
        }
        self.current.clear();
    }

    fn last(&self) -> &[u8] {
        if self.current.trim_ascii().is_empty() { &self.complete } else { &self.current }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_keeps_its_beginning_and_its_end_and_says_what_was_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut flood = b"first\n".to_vec();
        flood.resize(5 << 20, b'.');
        flood.extend_from_slice(b"\nlast\n\n");
        let total = flood.len();
        let log = Log::start(&path, io::empty(), io::Cursor::new(flood)).unwrap();
        log.wait(Duration::from_secs(10));
        assert_eq!(log.last_line(), "last");
        drop(log);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("first\n...") && text.ends_with("...\nlast\n\n"));
        let note = format!("\n[... {} bytes of output were cut here by dpsgd-bench ...]\n", total - HEAD - TAIL);
        assert_eq!(text.len(), HEAD + TAIL + note.len());
        assert!(text.contains(&note));
    }

    #[test]
    fn the_log_of_a_second_process_follows_that_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        for text in ["one\n", "two\n"] {
            let log = Log::start(&path, io::Cursor::new(text), io::empty()).unwrap();
            log.wait(Duration::from_secs(10));
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn the_last_line_is_found_across_pieces_and_blank_lines() {
        let mut line = LastLine::default();
        for piece in ["Trace", "back\nValue", "Error: 3\n", "\n  \n"] {
            line.take(piece.as_bytes());
        }
        assert_eq!(line.last(), b"ValueError: 3");
    }

    #[test]
    fn the_message_of_a_panic_is_found_above_its_notes_and_backtrace() {
        let mut line = LastLine::default();
        line.take(b"thread 'main' panicked at src/main.rs:2:5:\nindex out of bounds\nstack backtrace:\n");
        line.take(
            b"   0: core::panicking::panic_fmt\n             at ./src/main.rs:2:5\nnote: Some details are omitted\n",
        );
        assert_eq!(line.last(), b"index out of bounds");
        line.take(b"later\n");
        assert_eq!(line.last(), b"later");
    }
}
