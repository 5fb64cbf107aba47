//! Reading a worker's replies, which may be anything at all.

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use dpsgd_protocol::messages::Reply;

/// Longest reply read, in bytes.
pub(super) const REPLY_LIMIT: usize = 1 << 20;

/// Bytes of an unreadable reply that are shown.
const EXCERPT: usize = 80;

/// One thing that came from the worker.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// A reply.
    Reply(Reply),
    /// A line that is no reply: why.
    Garbage(String),
    /// The end: the worker has closed its replies.
    End,
}

/// Reads replies from `pipe` in a thread of its own until the end or the first garbage. The channel holds a few
/// replies only, so that a worker that babbles fills its pipe and not our memory.
pub(super) fn read(pipe: impl Read + Send + 'static) -> Receiver<Answer> {
    let (sender, receiver) = sync_channel(2);
    std::thread::spawn(move || forward(BufReader::new(pipe), &sender));
    receiver
}

fn forward(mut pipe: impl BufRead, sender: &SyncSender<Answer>) {
    loop {
        let answer = next(&mut pipe);
        let last = !matches!(answer, Answer::Reply(_));
        // A receiver that is gone no longer cares.
        if sender.send(answer).is_err() || last {
            return;
        }
    }
}

/// The next reply; a line without its newline counts as cut off.
fn next(pipe: &mut impl BufRead) -> Answer {
    let mut line = Vec::new();
    match pipe.take(REPLY_LIMIT as u64 + 1).read_until(b'\n', &mut line) {
        Err(error) => return Answer::Garbage(format!("its replies can't be read: {error}")),
        Ok(0) => return Answer::End,
        Ok(_) => {}
    }
    if line.len() > REPLY_LIMIT {
        return Answer::Garbage(format!("a reply longer than {REPLY_LIMIT} bytes: {}", excerpt(&line)));
    }
    match serde_json::from_slice(&line) {
        Ok(reply) => Answer::Reply(reply),
        Err(_) if line.last() != Some(&b'\n') => Answer::Garbage(format!("a reply cut short: {}", excerpt(&line))),
        Err(error) => Answer::Garbage(format!("a reply that is none: {}: {error}", excerpt(&line))),
    }
}

/// The beginning of some bytes, printable.
fn excerpt(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(EXCERPT)];
    let dots = if bytes.len() > EXCERPT { "..." } else { "" };
    format!("\"{}{dots}\"", shown.trim_ascii_end().escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> Vec<Answer> {
        let receiver = read(std::io::Cursor::new(text.to_vec()));
        receiver.iter().collect()
    }

    #[test]
    fn replies_are_read_until_the_end() {
        let answers = all(b"{\"reply\":\"set\"}\n{\"reply\":\"bye\"}\n");
        assert_eq!(answers, [Answer::Reply(Reply::Set {}), Answer::Reply(Reply::Bye {}), Answer::End]);
    }

    #[test]
    fn garbage_ends_the_reading_with_an_excerpt() {
        let shown = |text: &[u8]| match &all(text)[..] {
            [Answer::Garbage(reason)] => reason.clone(),
            other => panic!("{other:?}"),
        };
        assert!(shown(b"Loading \xff libraries\n").starts_with("a reply that is none: \"Loading \\xff libraries\":"));
        assert!(shown(b"{\"reply\":\"se").starts_with("a reply cut short: \"{\\\"reply\\\":\\\"se\""));
        let long = shown(&vec![b'x'; REPLY_LIMIT + 10]);
        assert!(long.starts_with("a reply longer than 1048576 bytes: \"xxx") && long.len() < 200, "{long}");
    }

    #[test]
    fn a_reply_with_an_unknown_field_is_garbage() {
        assert!(matches!(&all(b"{\"reply\":\"set\",\"more\":1}\n")[..], [Answer::Garbage(_)]));
    }
}
