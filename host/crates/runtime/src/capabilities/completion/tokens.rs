//! A streamed answer that a guest reads piece by piece, and its entry in the call log.
//!
//! The intent is on disk before the request leaves. The pieces that the guest has read are on disk when the guest sees
//! the end or drops the rest. In between the call is in flight: if the attempt is interrupted while the answer is
//! partly read, the next attempt repeats the call.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio_util::task::AbortOnDropHandle;

use crate::call_log::{Answer, CallEffect, InFlight, RecordedCall, Replayed, Requested, refused};
use crate::capabilities::{CallSpec, Delivery};
use modhost_core::import::Import;
use modhost_core::memory_budget::HeldMemory;
use modhost_platform::{CallError, CompletionRequest, CompletionStream, Ending, ErrorKind};

/// The call that streams an answer.
pub(super) const STREAM: CallSpec = CallSpec::new(Import::CompletionStream, CallEffect::Paid);

/// A guest's handle of a streamed answer. Dropping it closes the connection.
pub struct Tokens(State);

enum State {
    /// The answer is being streamed.
    Live(Live),
    /// The answer is in the log.
    Replayed {
        pieces: VecDeque<String>,
        end: End,
        /// The call, if the next attempt has to repeat it.
        given_up: Option<RecordedCall<Replayed>>,
    },
    /// The end was reached.
    Ended(End),
}

/// An answer that is being streamed.
struct Live {
    call: RecordedCall<InFlight>,
    /// The pieces that the guest has read so far.
    read: Vec<String>,
    /// Their size in bytes.
    bytes: usize,
    /// Their memory.
    held: HeldMemory,
    stream: Stream,
}

enum Stream {
    /// The request is being sent by a task of its own, because the guest may do other work meanwhile.
    Opening(AbortOnDropHandle<Result<Box<dyn CompletionStream>, CallError>>),
    /// The response has started; pieces arrive as the guest reads them.
    Open(Box<dyn CompletionStream>),
}

/// How an answer ended.
#[derive(Clone)]
enum End {
    /// The answer is complete.
    Complete,
    /// The guest of an earlier attempt dropped the answer here.
    Dropped,
    /// The stream failed.
    Failed(CallError),
}

/// A recorded answer: the pieces that the guest read.
#[derive(Default, Serialize, Deserialize)]
struct Streamed {
    pieces: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    given_up: bool,
    #[serde(flatten)]
    ending: Ending,
}

impl Tokens {
    /// Requests an answer, unless the log has it. When this returns, the intent is on disk.
    pub(super) async fn start(delivery: &Arc<Delivery>, request: CompletionRequest) -> Result<Self, CallError> {
        let call = match delivery.request(&STREAM, &request)? {
            Requested::Replayed(call) => return State::replayed(call).map(Self),
            Requested::Live(call) => call.leave().await?,
        };
        let (platform, caller) = (delivery.platform().clone(), delivery.caller_of(&call));
        let opening = async move { platform.stream(&caller, &request).await };
        let stream = Stream::Opening(AbortOnDropHandle::new(tokio::spawn(opening)));
        let held = delivery.memory().hold();
        Ok(Self(State::Live(Live { call, read: Vec::new(), bytes: 0, held, stream })))
    }

    /// Returns the next piece; none at the end, and then the whole answer is on disk.
    pub(super) async fn next(&mut self) -> Result<Option<String>, CallError> {
        match &mut self.0 {
            State::Live(live) => match live.stream.next().await {
                Ok(Some(piece)) => {
                    live.bytes += piece.len();
                    live.call.check_answer(live.bytes)?;
                    live.held.grow(piece.len()).map_err(refused)?;
                    live.read.push(piece.clone());
                    Ok(Some(piece))
                }
                Ok(None) => self.end(End::Complete).await,
                Err(error) => self.end(End::Failed(error)).await,
            },
            State::Replayed { pieces, end, given_up } => match pieces.pop_front() {
                Some(piece) => Ok(Some(piece)),
                None => {
                    if let Some(call) = given_up {
                        // Only another version of the module reads further than the one that dropped the answer.
                        call.repeat_next_attempt();
                    }
                    let end = end.clone();
                    self.0 = State::Ended(end.clone());
                    end.into_next()
                }
            },
            State::Ended(end) => end.clone().into_next(),
        }
    }

    /// Drops the rest of the answer, which the guest doesn't need, and records what it has read.
    pub(super) async fn finish_early(mut self) -> Result<(), CallError> {
        match self.0 {
            State::Live(_) => self.end(End::Dropped).await.map(drop),
            State::Replayed { .. } | State::Ended(_) => Ok(()),
        }
    }

    /// Closes the connection of a live answer, and records the pieces.
    async fn end(&mut self, end: End) -> Result<Option<String>, CallError> {
        if let State::Live(live) = std::mem::replace(&mut self.0, State::Ended(end.clone()))
            && let Err(error) = live.record(&end).await
        {
            // An answer that can't be replayed must not look complete.
            self.0 = State::Ended(End::Failed(error.clone()));
            return Err(error);
        }
        match end {
            End::Dropped => Ok(None),
            end => end.into_next(),
        }
    }
}

impl State {
    fn replayed(call: RecordedCall<Replayed>) -> Result<Self, CallError> {
        let answer = call.answer();
        let (streamed, end) = match answer.error() {
            Some(error) => (answer.part::<Streamed>()?.unwrap_or_default(), End::Failed(error.clone())),
            None => {
                let streamed: Streamed = answer.to_result()?;
                let end = if streamed.given_up { End::Dropped } else { End::Complete };
                (streamed, end)
            }
        };
        let given_up = matches!(end, End::Dropped).then_some(call);
        Ok(Self::Replayed { pieces: streamed.pieces.into(), end, given_up })
    }
}

impl Live {
    /// Closes the connection, and records the pieces. When this returns, they are on disk.
    async fn record(self, end: &End) -> Result<(), CallError> {
        let Self { call, read: pieces, stream, held: _held, .. } = self;
        let ending = stream.ending();
        drop(stream);
        let answer = match end {
            End::Failed(error) if pieces.is_empty() => Answer::Error(error.clone()),
            End::Failed(error) => Answer::interrupted(&Streamed { pieces, ..Streamed::default() }, error.clone())?,
            End::Complete => Answer::ok(&Streamed { pieces, given_up: false, ending })?,
            End::Dropped => Answer::ok(&Streamed { pieces, given_up: true, ending: Ending::default() })?,
        };
        call.answer(&answer)?.commit().await.map(drop)
    }
}

impl Stream {
    /// Returns the next piece; none at the end.
    async fn next(&mut self) -> Result<Option<String>, CallError> {
        let failed = |error| {
            CallError::new(ErrorKind::Unavailable, format!("`{}` was interrupted: {error}", Import::CompletionStream))
        };
        loop {
            match self {
                Self::Opening(opening) => *self = Self::Open(opening.await.unwrap_or_else(|error| Err(failed(error)))?),
                Self::Open(stream) => return stream.next().await,
            }
        }
    }

    fn ending(&self) -> Ending {
        if let Self::Open(stream) = self { stream.ending() } else { Ending::default() }
    }
}

impl End {
    /// Returns the result of a read past the last piece.
    fn into_next(self) -> Result<Option<String>, CallError> {
        match self {
            Self::Complete => Ok(None),
            Self::Failed(error) => Err(error),
            Self::Dropped => Err(CallError::new(
                ErrorKind::Unavailable,
                "an earlier attempt dropped this answer here, so the rest was not recorded; the next attempt requests \
                 it again",
            )),
        }
    }
}
