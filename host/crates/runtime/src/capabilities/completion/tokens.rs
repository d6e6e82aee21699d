//! An answer that a guest reads piece by piece, and its place in the call log.
//!
//! The intent is on disk before the request leaves. What the guest read is on disk when the guest sees the end, or gives the
//! rest up. In between the call is in flight: if the attempt is cut off while the answer is half read, the next one makes the
//! call again.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio_util::task::AbortOnDropHandle;

use crate::call_log::{Answer, CallEffect, InFlight, RecordedCall, Replayed, Requested};
use crate::capabilities::{CallSpec, Delivery};
use modhost_core::import::Import;
use modhost_platform::{CallError, CompletionRequest, CompletionStream, Ending, ErrorKind};

/// The call.
pub(super) const STREAM: CallSpec = CallSpec::new(Import::CompletionStream, CallEffect::Paid);

/// A guest's handle of an answer on its way. Dropping it closes the connection.
pub struct Tokens(State);

enum State {
    /// It arrives now.
    Live(Live),
    /// It arrived in an earlier attempt.
    Replayed {
        pieces: VecDeque<String>,
        end: End,
        /// The call, if the next attempt has to make it again.
        given_up: Option<RecordedCall<Replayed>>,
    },
    /// Nothing more arrives.
    Ended(End),
}

/// An answer that arrives now.
struct Live {
    call: RecordedCall<InFlight>,
    /// The pieces that the guest has read.
    read: Vec<String>,
    /// Their size in bytes.
    bytes: usize,
    stream: Stream,
}

enum Stream {
    /// The request is under way, in a task beside the guest, which may have other things to do meanwhile.
    Opening(AbortOnDropHandle<Result<Box<dyn CompletionStream>, CallError>>),
    /// The answer arrives as it is read.
    Open(Box<dyn CompletionStream>),
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
    /// Asks for an answer, unless the log has it. When this returns, the intent is on disk.
    pub(super) async fn start(delivery: &Arc<Delivery>, request: CompletionRequest) -> Result<Self, CallError> {
        let call = match delivery.request(&STREAM, &request)? {
            Requested::Replayed(call) => return State::replayed(call).map(Self),
            Requested::Live(call) => call.leave().await?,
        };
        let (platform, caller) = (delivery.platform().clone(), delivery.caller_of(&call));
        let asked = async move { platform.stream(&caller, &request).await };
        let stream = Stream::Opening(AbortOnDropHandle::new(tokio::spawn(asked)));
        Ok(Self(State::Live(Live { call, read: Vec::new(), bytes: 0, stream })))
    }

    /// Waits for the next piece. None is the end, and then the whole answer is on disk.
    pub(super) async fn next(&mut self) -> Result<Option<String>, CallError> {
        match &mut self.0 {
            State::Live(live) => match live.stream.next().await {
                Ok(Some(piece)) => {
                    live.bytes += piece.len();
                    live.call.check_answer(live.bytes)?;
                    live.read.push(piece.clone());
                    Ok(Some(piece))
                }
                Ok(None) => self.end(End::Whole).await,
                Err(error) => self.end(End::Failed(error)).await,
            },
            State::Replayed { pieces, end, given_up } => match pieces.pop_front() {
                Some(piece) => Ok(Some(piece)),
                None => {
                    if let Some(call) = given_up {
                        // Only another version of the module gets here.
                        call.make_again();
                    }
                    let end = end.clone();
                    self.0 = State::Ended(end.clone());
                    end.into_next()
                }
            },
            State::Ended(end) => end.clone().into_next(),
        }
    }

    /// Gives the rest up: the guest needs no more than it has read.
    pub(super) async fn give_up(mut self) -> Result<(), CallError> {
        match self.0 {
            State::Live(_) => self.end(End::GivenUp).await.map(drop),
            State::Replayed { .. } | State::Ended(_) => Ok(()),
        }
    }

    /// Closes the connection of a live answer, and records what arrived.
    async fn end(&mut self, end: End) -> Result<Option<String>, CallError> {
        if let State::Live(live) = std::mem::replace(&mut self.0, State::Ended(end.clone()))
            && let Err(unwritten) = live.record(&end).await
        {
            // What can't be replayed must not be taken for the whole.
            self.0 = State::Ended(End::Failed(unwritten.clone()));
            return Err(unwritten);
        }
        match end {
            End::GivenUp => Ok(None),
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
                let end = if streamed.given_up { End::GivenUp } else { End::Whole };
                (streamed, end)
            }
        };
        let given_up = matches!(end, End::GivenUp).then_some(call);
        Ok(Self::Replayed { pieces: streamed.pieces.into(), end, given_up })
    }
}

impl Live {
    /// Closes the connection, and records what arrived. When this returns, it is on disk.
    async fn record(self, end: &End) -> Result<(), CallError> {
        let Self { call, read: pieces, stream, .. } = self;
        let ending = stream.ending();
        drop(stream);
        let answer = match end {
            End::Failed(error) if pieces.is_empty() => Answer::Error(error.clone()),
            End::Failed(error) => Answer::broken_off(&Streamed { pieces, ..Streamed::default() }, error.clone())?,
            End::Whole => Answer::ok(&Streamed { pieces, given_up: false, ending })?,
            End::GivenUp => Answer::ok(&Streamed { pieces, given_up: true, ending: Ending::default() })?,
        };
        call.answer(&answer)?.commit().await.map(drop)
    }
}

impl Stream {
    /// Waits for the next piece.
    async fn next(&mut self) -> Result<Option<String>, CallError> {
        let broke = |error| {
            CallError::new(ErrorKind::Unavailable, format!("`{}` broke off: {error}", Import::CompletionStream))
        };
        loop {
            match self {
                Self::Opening(asked) => *self = Self::Open(asked.await.unwrap_or_else(|error| Err(broke(error)))?),
                Self::Open(stream) => return stream.next().await,
            }
        }
    }

    fn ending(&self) -> Ending {
        if let Self::Open(stream) = self { stream.ending() } else { Ending::default() }
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
