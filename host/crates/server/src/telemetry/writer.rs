//! Writes to a stream that may be slow, full or closed, without ever blocking the caller.
//!
//! Standard error belongs to the process that started the host: a terminal, a file on a disk that fills up, a pipe
//! whose reader hangs or has exited. A worker that waited for it would keep its delivery, so records go into a bounded
//! queue, and one thread writes them. Records that don't fit or can't be written are dropped and counted. When the
//! stream can be written again, a notice in it gives their number.

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use modhost_core::sync::{ignore_poison, lock};

/// The most bytes in the queue, in addition to as many that are being written. A busy host logs some hundred kilobytes
/// a second.
const MAX_QUEUED: usize = 4 << 20;

/// How long to retry a non-blocking stream before its records are dropped.
const MAX_NONBLOCKING_WAIT: Duration = Duration::from_secs(1);

/// Formats the record with the number of dropped records.
pub type Notice = fn(u64) -> Vec<u8>;

/// A writer that never blocks its caller.
#[derive(Clone)]
pub struct LossyWriter(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    /// Signaled when records were queued or written.
    changed: Condvar,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Queue {
    /// Records, each with its line end.
    bytes: Vec<u8>,
    /// Whether the thread is writing a batch.
    is_writing: bool,
}

impl LossyWriter {
    /// Starts the thread that writes to a stream. Without a `notice`, dropped records leave no trace in the stream.
    ///
    /// # Errors
    ///
    /// Fails if the operating system can't start a thread.
    pub fn start(name: &str, stream: impl Write + Send + 'static, notice: Option<Notice>) -> io::Result<Self> {
        let shared = Arc::new(Shared { queue: Mutex::default(), changed: Condvar::new(), dropped: AtomicU64::new(0) });
        let of_thread = shared.clone();
        let stream = Stream { stream, notice, reported: 0, is_torn: false };
        std::thread::Builder::new().name(name.to_owned()).spawn(move || stream.write_all(&of_thread))?;
        Ok(Self(shared))
    }

    /// Queues a record, which must end with its line end. Drops it if the queue is full.
    pub fn record(&self, record: &[u8]) {
        let mut queue = self.0.queue();
        if queue.bytes.len().saturating_add(record.len()) > MAX_QUEUED {
            drop(queue);
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.bytes.extend_from_slice(record);
        drop(queue);
        self.0.changed.notify_all();
    }

    /// Waits until everything queued is written or dropped, at most `longest`.
    pub fn flush(&self, longest: Duration) {
        let end = Instant::now() + longest;
        let mut queue = self.0.queue();
        while !queue.bytes.is_empty() || queue.is_writing {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            (queue, _) = ignore_poison(self.0.changed.wait_timeout(queue, left));
        }
    }

    /// Returns the number of records dropped so far.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

impl Write for LossyWriter {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        self.record(record);
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    /// Waits for the next records to write.
    fn next(&self) -> Vec<u8> {
        let mut queue = self.queue();
        queue.is_writing = false;
        self.changed.notify_all();
        while queue.bytes.is_empty() {
            queue = ignore_poison(self.changed.wait(queue));
        }
        queue.is_writing = true;
        std::mem::take(&mut queue.bytes)
    }
}

/// The stream, owned by the writing thread.
struct Stream<W> {
    stream: W,
    notice: Option<Notice>,
    /// How many of the dropped records the notices have reported.
    reported: u64,
    /// Whether the output ends in the middle of a record.
    is_torn: bool,
}

impl<W: Write> Stream<W> {
    fn write_all(mut self, shared: &Shared) {
        loop {
            let batch = shared.next();
            let written = if self.write_notice(shared) { self.write(&batch) } else { 0 };
            let lost = batch[written..].iter().filter(|byte| **byte == b'\n').count();
            shared.dropped.fetch_add(lost as u64, Ordering::Relaxed);
            if lost == 0 {
                // Otherwise records dropped during the write would be reported only with the next record.
                self.write_notice(shared);
            }
        }
    }

    /// Ends a torn record, and writes a notice about newly dropped ones. Returns whether the stream can be written.
    fn write_notice(&mut self, shared: &Shared) -> bool {
        let dropped = shared.dropped.load(Ordering::Relaxed);
        let mut head = if self.is_torn { b"\n".to_vec() } else { Vec::new() };
        if let Some(notice) = self.notice.filter(|_| dropped > self.reported) {
            head.extend(notice(dropped - self.reported));
        }
        if self.write(&head) < head.len() {
            return false;
        }
        self.reported = dropped;
        true
    }

    /// Writes as much as possible. Returns the number of bytes written.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let (mut written, mut waited) = (0, Duration::ZERO);
        while written < bytes.len() {
            match self.stream.write(&bytes[written..]) {
                Ok(count @ 1..) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && waited < MAX_NONBLOCKING_WAIT => {
                    let pause = Duration::from_millis(10);
                    std::thread::sleep(pause);
                    waited += pause;
                }
                Ok(0) | Err(_) => break,
            }
        }
        if written > 0 {
            self.is_torn = bytes[written - 1] != b'\n';
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A stream whose test decides the result of each write: a number of bytes, or an error.
    struct Scripted {
        steps: Receiver<io::Result<usize>>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = self.steps.recv().unwrap_or(Ok(usize::MAX))?.min(bytes.len());
            self.written.lock().unwrap().extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    type Written = Arc<Mutex<Vec<u8>>>;

    fn scripted() -> (LossyWriter, Sender<io::Result<usize>>, Written) {
        let (steps, stream) = channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let stream = Scripted { steps: stream, written: written.clone() };
        let notice: Notice = |count| format!("dropped {count}\n").into_bytes();
        (LossyWriter::start("test", stream, Some(notice)).unwrap(), steps, written)
    }

    const LONG: Duration = Duration::from_secs(60);
    const ALL: usize = usize::MAX;

    fn text(written: &Mutex<Vec<u8>>) -> String {
        String::from_utf8(written.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn counts_records_that_a_full_disk_drops_and_reports_them_later() {
        let (writer, steps, written) = scripted();
        for step in [Ok(ALL), Err(ErrorKind::StorageFull.into())] {
            steps.send(step).unwrap();
            writer.record(b"record\n");
            writer.flush(LONG);
        }
        assert_eq!((writer.dropped(), text(&written).as_str()), (1, "record\n"));
        // Half a record is written before the disk is full.
        for step in [Ok(ALL), Ok(3), Err(ErrorKind::StorageFull.into())] {
            steps.send(step).unwrap();
        }
        writer.record(b"second\n");
        writer.flush(LONG);
        assert_eq!((writer.dropped(), text(&written).as_str()), (2, "record\ndropped 1\nsec"));
        drop(steps);
        writer.record(b"third\n");
        writer.flush(LONG);
        assert_eq!((writer.dropped(), text(&written).as_str()), (2, "record\ndropped 1\nsec\ndropped 1\nthird\n"));
    }

    #[test]
    fn never_blocks_on_a_stalled_stream() {
        let (writer, steps, written) = scripted();
        let record = [&[b'x'; 1023][..], b"\n"].concat();
        // The thread takes the first record out of the queue and blocks.
        writer.record(&record);
        while !writer.0.queue().is_writing {
            std::thread::yield_now();
        }
        let fit = MAX_QUEUED / record.len();
        for _ in 0..fit + 10 {
            writer.record(&record);
        }
        assert_eq!(writer.dropped(), 10);
        writer.flush(Duration::ZERO);
        assert_eq!(text(&written), "");
        // When the stream is read again, only the dropped records are missing, and the notice needs no further record.
        drop(steps);
        writer.flush(LONG);
        let text = text(&written);
        assert_eq!(text.matches("x\n").count(), fit + 1);
        assert_eq!(text.matches("dropped 10\n").count(), 1);
    }

    #[test]
    fn drops_records_when_the_stream_is_closed() {
        let (writer, steps, _) = scripted();
        for _ in 0..100 {
            steps.send(Err(ErrorKind::BrokenPipe.into())).unwrap();
            writer.record(b"record\n");
            writer.flush(LONG);
        }
        assert_eq!(writer.dropped(), 100);
    }
}
