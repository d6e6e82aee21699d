//! Whose turn it is to be compiled: tenants take turns, and of one tenant's components those that gain most come first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use modhost_core::event::Name;
use modhost_core::sync::lock;

/// Up to which size a component is small, in bytes. Nearly all that are take well below a second.
const SMALL: usize = 1 << 20;

/// How much is gained when a component is compiled; the most comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Its module has no version that serves.
    First,
    /// An older version serves meanwhile.
    Next,
    /// It serves already, and is to run faster.
    Faster,
}

/// A component that is to be compiled.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Job {
    /// Whose it is: the tenants its module works for; none stands for all of them.
    pub tenants: Vec<Name>,
    pub priority: Priority,
    /// How large it is, in bytes.
    pub bytes: usize,
    /// Whether it has turned out to take longer than small ones do.
    pub takes_long: bool,
}

impl Job {
    fn is_small(&self) -> bool {
        self.bytes <= SMALL && !self.takes_long
    }
}

/// A queue with a few places at its head.
///
/// Who has fewest places is next. The last free place is for those who have none, so that nobody can take all of them. One
/// more place, beside the others, is for what is small alone, and not for long: however many places there are and whoever
/// has them, that never waits for something large.
pub(super) struct Queue {
    line: Arc<Mutex<Line>>,
}

struct Line {
    /// How many places there are, the one beside them left out.
    places: usize,
    taken: usize,
    /// Whether the place beside is taken.
    beside: bool,
    /// How many places each has.
    held: HashMap<Vec<Name>, usize>,
    /// Places that were held until a limit was reached: whose each was, and until when it counts as if it still were.
    overdrawn: Vec<(Vec<Name>, Instant)>,
    /// How many turns each has had since somebody began to wait.
    had: HashMap<Vec<Name>, usize>,
    /// In the order they came.
    waiting: Vec<Waiting>,
    /// Turns that end when somebody waits who has no code yet, each with its number.
    preemptible: HashMap<u64, CancellationToken>,
    /// The number of the next one.
    next_preemptible: u64,
}

struct Waiting {
    job: Job,
    hand: oneshot::Sender<CompilePermit>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum QueuePosition {
    /// One of the places.
    Among,
    /// The place beside them.
    Beside,
}

/// A place at the head of the queue; dropping it lets in who is next.
pub(in crate::engine) struct CompilePermit {
    line: Arc<Mutex<Line>>,
    tenants: Vec<Name>,
    place: QueuePosition,
    began: Instant,
    overdrawn: bool,
    /// Its number among those that are preemptible, and what tells it to end.
    preemptible: Option<(u64, CancellationToken)>,
}

impl Queue {
    /// A queue that lets in so many at once, and something small beside them.
    pub fn new(places: usize) -> Self {
        let line = Line {
            places,
            taken: 0,
            beside: false,
            held: HashMap::new(),
            overdrawn: Vec::new(),
            had: HashMap::new(),
            waiting: Vec::new(),
            preemptible: HashMap::new(),
            next_preemptible: 0,
        };
        Self { line: Arc::new(Mutex::new(line)) }
    }

    /// Waits for a turn. Whoever only waits to run faster gives theirs up meanwhile: an author who saves twice would else
    /// wait until the first version is compiled to the end.
    pub async fn turn(&self, job: Job) -> CompilePermit {
        let (hand, mut handed) = oneshot::channel();
        let preempts = job.priority != Priority::Faster;
        lock(&self.line).waiting.push(Waiting { job, hand });
        let_in(&self.line);
        if let Ok(turn) = handed.try_recv() {
            return turn;
        }
        if preempts {
            lock(&self.line).preempt();
        }
        match handed.await {
            Ok(turn) => turn,
            // Who waits is only taken out of the line to be handed a turn, and the line lives as long as the queue.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Hands out turns to all who may have one now.
fn let_in(line: &Arc<Mutex<Line>>) {
    let handed: Vec<_> = {
        let mut free = lock(line);
        let next = || {
            let (waiting, place) = free.next()?;
            let preemptible = (waiting.job.priority == Priority::Faster).then(|| free.add_preemptible());
            Some((waiting.hand, CompilePermit::new(line, waiting.job, place, preemptible)))
        };
        std::iter::from_fn(next).collect()
    };
    for (hand, turn) in handed {
        // One who left just now drops the turn, which passes it on.
        let _ = hand.send(turn);
    }
}

impl Line {
    /// Takes out of the line who is next, with the place it gets; none if nobody may have one now.
    fn next(&mut self) -> Option<(Waiting, QueuePosition)> {
        if self.beside && self.taken >= self.places {
            return None;
        }
        let now = Instant::now();
        self.waiting.retain(|waiting| !waiting.hand.is_closed());
        self.overdrawn.retain(|(_, until)| *until > now);
        let next = [QueuePosition::Beside, QueuePosition::Among]
            .into_iter()
            .find_map(|place| Some((self.first_for(place)?, place)));
        let taken = next.map(|(index, place)| (self.waiting.remove(index), place));
        if let Some((Waiting { job, .. }, place)) = &taken {
            match place {
                QueuePosition::Among => self.taken += 1,
                QueuePosition::Beside => self.beside = true,
            }
            *self.held.entry(job.tenants.clone()).or_default() += 1;
            *self.had.entry(job.tenants.clone()).or_default() += 1;
        }
        if self.waiting.is_empty() {
            // What was long ago says nothing of who is to be next.
            self.had.clear();
        }
        taken
    }

    /// Who of those that may have a place comes first.
    fn first_for(&self, place: QueuePosition) -> Option<usize> {
        let may = self.waiting.iter().enumerate().filter(|(_, waiting)| self.has_room(place, &waiting.job));
        may.min_by_key(|(_, waiting)| self.rank(&waiting.job)).map(|(index, _)| index)
    }

    fn has_room(&self, place: QueuePosition, job: &Job) -> bool {
        match place {
            QueuePosition::Beside => !self.beside && job.is_small(),
            QueuePosition::Among => {
                let keeps_one_free = self.places > 1 && self.held_by(&job.tenants) > 0;
                self.taken + usize::from(keeps_one_free) < self.places
            }
        }
    }

    /// Where a job stands, the lowest first; those that came first come first of equals. Between tenants it counts what
    /// they have and had, whatever the priority: else one that always has something urgent would never let others in.
    fn rank(&self, job: &Job) -> (usize, usize, Priority, usize) {
        let had = self.had.get(&job.tenants).copied().unwrap_or_default();
        (self.held_by(&job.tenants), had, job.priority, job.bytes)
    }

    /// How many places somebody has, or has to be counted as having.
    fn held_by(&self, tenants: &[Name]) -> usize {
        let overdrawn = self.overdrawn.iter().filter(|(whose, _)| whose == tenants).count();
        self.held.get(tenants).copied().unwrap_or_default() + overdrawn
    }

    /// Counts a turn among those that end when somebody waits who has no code yet.
    fn add_preemptible(&mut self) -> (u64, CancellationToken) {
        let (number, token) = (self.next_preemptible, CancellationToken::new());
        self.next_preemptible += 1;
        self.preemptible.insert(number, token.clone());
        (number, token)
    }

    /// Ends those.
    fn preempt(&mut self) {
        self.preemptible.drain().for_each(|(_, token)| token.cancel());
    }

    /// Takes a place back.
    fn free(&mut self, turn: &mut CompilePermit) {
        match turn.place {
            QueuePosition::Among => self.taken = self.taken.saturating_sub(1),
            QueuePosition::Beside => self.beside = false,
        }
        if let Some((number, _)) = turn.preemptible.take() {
            self.preemptible.remove(&number);
        }
        let tenants = std::mem::take(&mut turn.tenants);
        if let Some(held) = self.held.get_mut(&tenants) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                self.held.remove(&tenants);
            }
        }
        if turn.overdrawn {
            let now = Instant::now();
            self.overdrawn.push((tenants, now + now.duration_since(turn.began)));
        }
    }
}

impl CompilePermit {
    fn new(
        line: &Arc<Mutex<Line>>,
        job: Job,
        place: QueuePosition,
        preemptible: Option<(u64, CancellationToken)>,
    ) -> Self {
        Self { line: line.clone(), tenants: job.tenants, place, began: Instant::now(), overdrawn: false, preemptible }
    }

    /// Whether nobody waits for its end: what it compiles serves already.
    pub fn is_in_the_background(&self) -> bool {
        self.preemptible.is_some()
    }

    /// Waits until somebody else needs the turn more; for most turns that is never.
    pub async fn preempted(&self) {
        match &self.preemptible {
            Some((_, token)) => token.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Whether it is for something small, and short.
    pub fn is_short(&self) -> bool {
        self.place == QueuePosition::Beside
    }

    /// Says that it ends because a limit was reached: whose it is counts as having it for as long again.
    pub fn reached_a_limit(&mut self) {
        self.overdrawn = true;
    }
}

impl Drop for CompilePermit {
    fn drop(&mut self) {
        let line = self.line.clone();
        lock(&line).free(self);
        let_in(&line);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;
    use futures::future::LocalBoxFuture;

    use super::Priority::{Faster, First, Next};
    use super::*;

    const LARGE: usize = SMALL + 1;

    fn job(tenant: &str, priority: Priority, bytes: usize) -> Job {
        Job { tenants: vec![Name::from(tenant)], priority, bytes, takes_long: false }
    }

    /// Something large of a tenant's, no more urgent than anything else.
    fn large(tenant: &str) -> Job {
        job(tenant, Next, LARGE)
    }

    /// A queue with those who wait in it.
    struct Waiters<'q> {
        queue: &'q Queue,
        line: Vec<(usize, LocalBoxFuture<'q, CompilePermit>)>,
    }

    impl<'q> Waiters<'q> {
        /// Lets these queue up in this order.
        fn new(queue: &'q Queue, jobs: impl IntoIterator<Item = Job>) -> Self {
            let mut waiters = Self { queue, line: Vec::new() };
            for (number, job) in jobs.into_iter().enumerate() {
                waiters.line.push((number, queue.turn(job).boxed_local()));
                let (_, last) = waiters.line.last_mut().unwrap();
                assert!(last.now_or_never().is_none(), "number {number} got in at once");
            }
            waiters
        }

        /// Those that have been handed a turn by now.
        fn got(&mut self) -> Vec<(usize, CompilePermit)> {
            let mut got = Vec::new();
            self.line.retain_mut(|(number, wait)| match wait.now_or_never() {
                Some(turn) => {
                    got.push((*number, turn));
                    false
                }
                None => true,
            });
            got
        }

        /// Gives a turn back, and whatever turns follow from that, one at a time; answers with the order they came in.
        fn order(mut self, turn: CompilePermit) -> Vec<usize> {
            let mut turn = Some(turn);
            let mut order = Vec::new();
            while !self.line.is_empty() {
                drop(turn.take());
                let mut got = self.got();
                assert_eq!(got.len(), 1, "one at a time");
                let (number, next) = got.remove(0);
                order.push(number);
                turn = Some(next);
            }
            drop(turn);
            assert_eq!(lock(&self.queue.line).taken, 0);
            order
        }
    }

    fn numbers(got: &[(usize, CompilePermit)]) -> Vec<usize> {
        got.iter().map(|(number, _)| *number).collect()
    }

    fn at_once(queue: &Queue, job: Job) -> Option<CompilePermit> {
        queue.turn(job).now_or_never()
    }

    /// A queue with a single place that somebody else has.
    fn busy() -> (Queue, CompilePermit) {
        let queue = Queue::new(1);
        let turn = at_once(&queue, large("somebody else")).unwrap();
        (queue, turn)
    }

    #[test]
    fn of_one_tenants_what_gains_most_comes_first() {
        let (queue, turn) = busy();
        let sizes = [(Faster, 1), (Next, 5), (Next, 4), (First, 900), (First, 800), (First, 800)];
        let jobs = sizes.map(|(priority, bytes)| job("one", priority, LARGE + bytes));
        assert_eq!(Waiters::new(&queue, jobs).order(turn), [4, 5, 3, 2, 1, 0]);
    }

    #[test]
    fn tenants_take_turns_whatever_the_urgency() {
        let (queue, turn) = busy();
        let many = (0..4).map(|number| job("many", First, LARGE + number));
        let jobs = many.chain([job("few", Next, 9 * LARGE), job("few", Faster, LARGE), job("one", Next, LARGE)]);
        // At first nobody has had a turn: the most urgent, then each of the others', and from the beginning.
        assert_eq!(Waiters::new(&queue, jobs).order(turn), [0, 6, 4, 1, 5, 2, 3]);
    }

    #[test]
    fn turns_are_forgotten_when_nobody_waits() {
        let (queue, turn) = busy();
        assert_eq!(Waiters::new(&queue, [large("one"), large("one")]).order(turn), [0, 1]);
        let turn = at_once(&queue, large("somebody else")).unwrap();
        assert_eq!(Waiters::new(&queue, [large("other"), job("one", First, LARGE)]).order(turn), [1, 0]);
    }

    #[test]
    fn the_last_free_place_is_for_those_who_have_none() {
        let queue = Queue::new(2);
        let first = at_once(&queue, large("one")).unwrap();
        let mut waiters = Waiters::new(&queue, [job("one", First, LARGE)]);
        let other = at_once(&queue, job("other", Faster, 9 * LARGE)).expect("the place that was kept");
        drop(other);
        assert!(waiters.got().is_empty(), "it is kept again");
        drop(first);
        assert_eq!(waiters.got().len(), 1);
    }

    #[test]
    fn who_has_a_place_comes_after_those_who_have_none() {
        let queue = Queue::new(3);
        let mut one = vec![at_once(&queue, large("one")).unwrap(), at_once(&queue, large("one")).unwrap()];
        let other = at_once(&queue, large("other")).unwrap();
        let jobs = [job("one", First, LARGE), job("other", First, LARGE), job("third", Faster, 9 * LARGE)];
        let mut waiters = Waiters::new(&queue, jobs);
        one.pop();
        let third = waiters.got();
        assert_eq!(numbers(&third), [2]);
        drop(other);
        let other = waiters.got();
        assert_eq!(numbers(&other), [1]);
    }

    #[test]
    fn who_reached_a_limit_counts_as_having_a_place_for_as_long_again() {
        let queue = Queue::new(2);
        let mut turn = at_once(&queue, large("one")).unwrap();
        turn.began -= Duration::from_secs(60);
        turn.reached_a_limit();
        drop(turn);
        let _other = at_once(&queue, large("other")).unwrap();
        let mut waiters = Waiters::new(&queue, [job("one", First, LARGE)]);
        assert!(at_once(&queue, large("third")).is_some(), "the last place is kept from one");
        assert!(waiters.got().is_empty());

        lock(&queue.line).overdrawn[0].1 = Instant::now();
        drop(at_once(&queue, large("fourth")));
        assert_eq!(numbers(&waiters.got()), [0], "that is over");
    }

    #[test]
    fn with_one_place_who_reached_a_limit_still_gets_it_after_the_others() {
        let (queue, mut turn) = busy();
        turn.began -= Duration::from_secs(60);
        turn.reached_a_limit();
        let jobs = [job("somebody else", First, LARGE), large("one"), large("one")];
        assert_eq!(Waiters::new(&queue, jobs).order(turn), [1, 2, 0]);
        let only = at_once(&queue, large("somebody else"));
        assert!(only.is_some(), "nobody else wants it");
    }

    #[test]
    fn what_is_small_never_waits_for_what_is_large() {
        let (queue, turn) = busy();
        let small = at_once(&queue, job("one", Next, SMALL)).expect("the place beside");
        let mut waiters = Waiters::new(&queue, [large("other"), job("other", Faster, SMALL), job("one", First, 1)]);
        drop(small);
        let beside = waiters.got();
        assert_eq!(numbers(&beside), [2]);
        drop(turn);
        let among = waiters.got();
        assert_eq!(numbers(&among), [0], "no place beside for what is large");
        drop(beside);
        assert_eq!(numbers(&waiters.got()), [1]);
    }

    #[test]
    fn the_place_beside_is_for_what_is_small_and_short() {
        let queue = Queue::new(2);
        let [beside, among] = [1, SMALL].map(|bytes| at_once(&queue, job("one", Next, bytes)).unwrap());
        assert!(beside.is_short() && !among.is_short());
        assert!(at_once(&queue, job("one", Next, 1)).is_none(), "the last place is kept from what is small, too");
        drop(beside);
        assert!(at_once(&queue, Job { takes_long: true, ..job("one", Next, 1) }).is_none());
    }

    #[test]
    fn who_has_left_is_passed_over() {
        let (queue, turn) = busy();
        let mut gone = queue.turn(job("one", First, LARGE)).boxed_local();
        let mut stays = queue.turn(job("one", Next, LARGE)).boxed_local();
        assert!((&mut gone).now_or_never().is_none() && (&mut stays).now_or_never().is_none());
        drop(gone);
        drop(turn);
        let turn = (&mut stays).now_or_never().expect("its turn");
        // One that leaves with the turn already handed to it passes it on, too.
        let mut handed = queue.turn(large("one")).boxed_local();
        assert!((&mut handed).now_or_never().is_none());
        drop(turn);
        drop(handed);
        assert!(at_once(&queue, large("one")).is_some());
    }

    #[test]
    fn a_turn_to_run_faster_is_given_up_for_whoever_has_no_code_yet() {
        let queue = Queue::new(2);
        let faster = at_once(&queue, job("one", Faster, LARGE)).unwrap();
        assert!(faster.is_in_the_background() && faster.preempted().now_or_never().is_none());
        let mut another = Waiters::new(&queue, [job("one", Faster, LARGE)]);
        assert!(faster.preempted().now_or_never().is_none(), "by somebody no more urgent");

        let mut waiters = Waiters::new(&queue, [job("one", Next, LARGE)]);
        assert!(faster.preempted().now_or_never().is_some());
        drop(faster);
        let next = waiters.got();
        assert_eq!(numbers(&next), [0]);
        assert!(!next[0].1.is_in_the_background() && next[0].1.preempted().now_or_never().is_none());
        assert!(another.got().is_empty(), "it waits for the other");
        drop(next);
        let another = another.got();
        assert!(another[0].1.preempted().now_or_never().is_none(), "it begins anew");
    }

    #[test]
    fn as_many_at_once_as_there_are_places() {
        let queue = Queue::new(2);
        let _turns = [large("one"), large("other")].map(|job| at_once(&queue, job).unwrap());
        assert!(at_once(&queue, large("third")).is_none());
    }
}
