//! Whose turn it is to be compiled: what gains most comes first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// How much is gained when a component is compiled; the most comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Its module has no version that serves.
    First,
    /// An older version serves meanwhile.
    Next,
    /// It serves already, and is to run faster.
    Faster,
}

/// A queue with a few places at its head.
pub(super) struct Queue {
    line: Arc<Mutex<Line>>,
}

struct Line {
    free: usize,
    waiting: BTreeMap<Rank, oneshot::Sender<Turn>>,
    arrived: u64,
}

/// Where someone stands in the queue: the urgent first, of those the small, of those who came first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    urgency: Urgency,
    bytes: usize,
    arrived: u64,
}

/// A place at the head of the queue; dropping it lets in who is next.
pub(in crate::engine) struct Turn {
    line: Arc<Mutex<Line>>,
}

impl Queue {
    /// A queue that lets in so many at once.
    pub fn new(places: usize) -> Self {
        let line = Line { free: places, waiting: BTreeMap::new(), arrived: 0 };
        Self { line: Arc::new(Mutex::new(line)) }
    }

    /// Waits for a turn, for a component of so many bytes.
    pub async fn turn(&self, urgency: Urgency, bytes: usize) -> Turn {
        let handed = {
            let mut line = lock(&self.line);
            if line.free > 0 {
                line.free -= 1;
                return Turn { line: self.line.clone() };
            }
            let rank = Rank { urgency, bytes, arrived: line.arrived };
            let (hand, handed) = oneshot::channel();
            line.arrived += 1;
            line.waiting.insert(rank, hand);
            handed
        };
        // Who waits is only taken out of the line to be handed a turn, and the line lives as long as the queue.
        handed.await.unwrap_or_else(|_| Turn { line: self.line.clone() })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut line = lock(&self.line);
            let next = std::iter::from_fn(|| line.waiting.pop_first()).find(|(_, hand)| !hand.is_closed());
            if next.is_none() {
                line.free += 1;
            }
            next
        };
        if let Some((_, hand)) = next {
            // One who left just now drops the turn, which passes it on.
            let _ = hand.send(Turn { line: self.line.clone() });
        }
    }
}

fn lock(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::future::LocalBoxFuture;

    use super::*;

    /// Takes the only turn, lets these queue up behind it in this order, and answers with the order they came in.
    async fn order(queue: &Queue, waiting: &[(Urgency, usize)]) -> Vec<usize> {
        let mut turn = Some(queue.turn(Urgency::Faster, 0).await);
        let mut line: Vec<(usize, LocalBoxFuture<'_, Turn>)> =
            waiting.iter().map(|(urgency, bytes)| queue.turn(*urgency, *bytes).boxed_local()).enumerate().collect();
        assert!(line.iter_mut().all(|(_, wait)| wait.now_or_never().is_none()), "one got in beside the only turn");
        let mut order = Vec::new();
        while !line.is_empty() {
            drop(turn.take());
            let mut got = None;
            line.retain_mut(|(number, wait)| match wait.now_or_never() {
                Some(next) => {
                    order.push(*number);
                    assert!(got.replace(next).is_none(), "two got in");
                    false
                }
                None => true,
            });
            turn = got;
            assert!(turn.is_some(), "the turn was lost");
        }
        order
    }

    #[tokio::test]
    async fn what_gains_most_comes_first() {
        use Urgency::{Faster, First, Next};
        let queue = Queue::new(1);
        let waiting = [(Faster, 1), (Next, 5), (Next, 4), (First, 900), (First, 800), (First, 800)];
        assert_eq!(order(&queue, &waiting).await, [4, 5, 3, 2, 1, 0]);
    }

    #[tokio::test]
    async fn who_has_left_is_passed_over() {
        let queue = Queue::new(1);
        let turn = queue.turn(Urgency::First, 1).await;
        let mut gone = queue.turn(Urgency::First, 1).boxed_local();
        let mut stays = queue.turn(Urgency::Next, 1).boxed_local();
        assert!((&mut gone).now_or_never().is_none() && (&mut stays).now_or_never().is_none());
        drop(gone);
        drop(turn);
        let turn = (&mut stays).now_or_never().expect("its turn");
        // One that leaves with the turn already handed to it passes it on, too.
        let mut handed = queue.turn(Urgency::First, 1).boxed_local();
        assert!((&mut handed).now_or_never().is_none());
        drop(turn);
        drop(handed);
        assert!(queue.turn(Urgency::First, 1).now_or_never().is_some());
    }

    #[tokio::test]
    async fn as_many_at_once_as_there_are_places() {
        let queue = Queue::new(2);
        let _turns = (queue.turn(Urgency::First, 1).await, queue.turn(Urgency::First, 1).await);
        assert!(queue.turn(Urgency::First, 1).now_or_never().is_none());
    }
}
