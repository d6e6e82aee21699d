//! An answer that a guest reads piece by piece, and its place in the record.
//!
//! That it is asked for is on disk before the request leaves; what the guest read of it, when it hears of the end, or gives
//! the rest up. In between the call is in flight: an attempt that is cut off with an answer half read asks for it again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio_util::task::AbortOnDropHandle;

use crate::capabilities::delivery::{CallEffect, Record};
use crate::capabilities::usage::InFlight;
use crate::capabilities::{Answer, Delivery};
use modhost_platform::{CallError, CompletionRequest, CompletionStream, Ending, ErrorKind};

/// The call.
const STREAM: &str = "completion.stream";

/// A guest's handle of an answer on its way. Dropping it closes the connection it comes by.
pub struct Tokens {
    record: Record,
    begun: Instant,
    /// What the guest has read of a live answer.
    read: Vec<String>,
    /// How much that is, in bytes.
    bytes: usize,
    /// Held until nothing more comes.
    in_flight: Option<InFlight>,
    state: State,
}

enum State {
    /// It is asked for. That goes on beside the guest, who may have other things to do meanwhile.
    Opening(AbortOnDropHandle<Result<Box<dyn CompletionStream>, CallError>>),
    /// It comes as it is read.
    Open(Box<dyn CompletionStream>),
    /// It came before: what is left of it, and how it ended.
    Replayed(VecDeque<String>, End),
    /// Nothing more comes.
    Ended(End),
}

/// How an answer ended.
#[derive(Clone)]
enum End {
    /// The model said all it had to say.
    Whole,
    /// The guest of an earlier attempt read no further.
    GivenUp,
    /// It failed.
    Failed(CallError),
}

/// What is recorded of an answer: the pieces as the guest read them.
#[derive(Default, Serialize, Deserialize)]
struct Streamed {
    pieces: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    given_up: bool,
    #[serde(flatten)]
    ending: Ending,
}

impl Tokens {
    /// Asks for an answer, unless the record has it. When this returns, that it is asked for is on disk.
    pub(super) async fn start(delivery: &Arc<Delivery>, request: CompletionRequest) -> Result<Self, CallError> {
        let pending = delivery.prepare(CallEffect::Paid, STREAM, &request)?;
        let (record, answer, in_flight) = pending.begin().await?;
        let in_flight = answer.is_none().then_some(in_flight);
        let state = match answer {
            Some(answer) => State::replayed(answer)?,
            None => {
                let (platform, caller) = (delivery.platform().clone(), record.caller());
                let asked = async move { platform.stream(&caller, &request).await };
                State::Opening(AbortOnDropHandle::new(tokio::spawn(asked)))
            }
        };
        Ok(Self { record, begun: Instant::now(), read: Vec::new(), bytes: 0, in_flight, state })
    }

    /// Waits for the next piece; none is the end, and then the whole answer is on disk.
    pub(super) async fn next(&mut self) -> Result<Option<String>, CallError> {
        match &mut self.state {
            State::Replayed(pieces, end) => match pieces.pop_front() {
                Some(piece) => Ok(Some(piece)),
                None => {
                    let end = end.clone();
                    self.replayed_to(end)
                }
            },
            State::Ended(end) => end.clone().into_next(),
            State::Opening(_) | State::Open(_) => match self.state.read_on().await {
                Ok(Some(piece)) => {
                    self.bytes += piece.len();
                    self.record.check_answer(self.bytes)?;
                    self.read.push(piece.clone());
                    Ok(Some(piece))
                }
                Ok(None) => self.end(End::Whole).await,
                Err(error) => self.end(End::Failed(error)).await,
            },
        }
    }

    /// Gives the rest up: what the guest has read is all it wanted to know.
    pub(super) async fn give_up(mut self) -> Result<(), CallError> {
        match self.state {
            State::Opening(_) | State::Open(_) => self.end(End::GivenUp).await.map(drop),
            State::Replayed(..) | State::Ended(_) => Ok(()),
        }
    }

    /// Closes the connection of a live answer, and writes down what came of it.
    async fn end(&mut self, end: End) -> Result<Option<String>, CallError> {
        let ended = std::mem::replace(&mut self.state, State::Ended(end.clone()));
        let ending = if let State::Open(stream) = &ended { stream.ending() } else { Ending::default() };
        drop(ended);
        self.in_flight = None;
        let pieces = std::mem::take(&mut self.read);
        let answer = match &end {
            End::Failed(error) if pieces.is_empty() => Answer::Error(error.clone()),
            End::Failed(error) => Answer::broken_off(&Streamed { pieces, ..Streamed::default() }, error.clone())?,
            End::Whole => Answer::ok(&Streamed { pieces, given_up: false, ending })?,
            End::GivenUp => Answer::ok(&Streamed { pieces, given_up: true, ending: Ending::default() })?,
        };
        if let Err(unwritten) = self.record.end(self.begun, &answer).await {
            // What can't be replayed must not be taken for the whole.
            self.state = State::Ended(End::Failed(unwritten.clone()));
            return Err(unwritten);
        }
        match end {
            End::GivenUp => Ok(None),
            end => end.into_next(),
        }
    }

    /// The end of what the record has.
    fn replayed_to(&mut self, end: End) -> Result<Option<String>, CallError> {
        if let End::GivenUp = end {
            // Only another version of the module gets here. The next attempt has it answered anew.
            self.record.make_again();
        }
        self.state = State::Ended(end.clone());
        end.into_next()
    }
}

impl State {
    fn replayed(answer: Answer) -> Result<Self, CallError> {
        let (streamed, failed): (Streamed, _) = match answer {
            Answer::BrokenOff { part, error } => (Answer::Ok(part).into_result()?, Some(error)),
            Answer::Error(error) => (Streamed::default(), Some(error)),
            answer => (answer.into_result()?, None),
        };
        let end = match failed {
            Some(error) => End::Failed(error),
            None if streamed.given_up => End::GivenUp,
            None => End::Whole,
        };
        Ok(Self::Replayed(streamed.pieces.into(), end))
    }

    /// Reads a live answer on.
    async fn read_on(&mut self) -> Result<Option<String>, CallError> {
        if let Self::Opening(asked) = self {
            let broke = |error| CallError::new(ErrorKind::Unavailable, format!("`{STREAM}` broke off: {error}"));
            *self = Self::Open(asked.await.unwrap_or_else(|error| Err(broke(error)))?);
        }
        match self {
            Self::Open(stream) => stream.next().await,
            Self::Opening(_) | Self::Replayed(..) | Self::Ended(_) => Ok(None),
        }
    }
}

impl End {
    /// What a guest hears that reads beyond the last piece.
    fn into_next(self) -> Result<Option<String>, CallError> {
        match self {
            Self::Whole => Ok(None),
            Self::Failed(error) => Err(error),
            Self::GivenUp => Err(CallError::new(
                ErrorKind::Unavailable,
                "an earlier attempt gave this answer up here, and the rest of it is not there to be read; the next attempt \
                 has it answered anew",
            )),
        }
    }
}
