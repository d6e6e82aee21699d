//! Why a request has no answer: for the guest one of the codes of `wasi:http`, for people a sentence.

use wasmtime_wasi_http::Error;

use crate::platform::{ErrorKind, PlatformError};

/// Why a request has no answer.
#[derive(Debug)]
pub(super) struct Failure {
    pub code: Code,
    /// In a sentence, with the request it is about. Holds no credential.
    pub message: String,
}

/// The codes of `wasi:http` that come to pass here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    DnsError,
    DestinationUnavailable,
    DestinationProhibited,
    ConnectionRefused,
    ConnectionTerminated,
    ConnectionTimeout,
    ReadTimeout,
    TlsProtocol,
    TlsCertificate,
    RequestDenied,
    RequestUri,
    RequestBodySize,
    RequestTrailers,
    AnswerIncomplete,
    AnswerHeaders,
    AnswerBodySize,
    AnswerTimeout,
    Protocol,
    Internal,
}

/// Each code by its name in WIT, with what can be done about it.
const CODES: [(Code, &str, ErrorKind); 19] = [
    (Code::DnsError, "DNS-error", ErrorKind::Unavailable),
    (Code::DestinationUnavailable, "destination-unavailable", ErrorKind::Unavailable),
    (Code::DestinationProhibited, "destination-IP-prohibited", ErrorKind::Denied),
    (Code::ConnectionRefused, "connection-refused", ErrorKind::Unavailable),
    (Code::ConnectionTerminated, "connection-terminated", ErrorKind::Unavailable),
    (Code::ConnectionTimeout, "connection-timeout", ErrorKind::Timeout),
    (Code::ReadTimeout, "connection-read-timeout", ErrorKind::Timeout),
    (Code::TlsProtocol, "TLS-protocol-error", ErrorKind::Unavailable),
    (Code::TlsCertificate, "TLS-certificate-error", ErrorKind::Unavailable),
    (Code::RequestDenied, "HTTP-request-denied", ErrorKind::Denied),
    (Code::RequestUri, "HTTP-request-URI-invalid", ErrorKind::Invalid),
    (Code::RequestBodySize, "HTTP-request-body-size", ErrorKind::Invalid),
    (Code::RequestTrailers, "HTTP-request-trailer-section-size", ErrorKind::Invalid),
    (Code::AnswerIncomplete, "HTTP-response-incomplete", ErrorKind::Unavailable),
    (Code::AnswerHeaders, "HTTP-response-header-section-size", ErrorKind::Invalid),
    (Code::AnswerBodySize, "HTTP-response-body-size", ErrorKind::Invalid),
    (Code::AnswerTimeout, "HTTP-response-timeout", ErrorKind::Timeout),
    (Code::Protocol, "HTTP-protocol-error", ErrorKind::Unavailable),
    (Code::Internal, "internal-error", ErrorKind::Unavailable),
];

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// With the request it is about.
    pub fn about(self, shown: &str) -> Self {
        Self { message: format!("`{shown}`: {}", self.message), ..self }
    }

    /// In the middle of an answer: a connection that ends there has not been refused anything.
    pub fn incomplete(self) -> Self {
        let code = if self.code == Code::ConnectionTerminated { Code::AnswerIncomplete } else { self.code };
        Self { code, ..self }
    }

    /// As the guest has it. Hardly any of the codes has room for words.
    pub fn into_wasi(self) -> Error {
        match self.code {
            Code::DnsError => Error::DnsError { rcode: None, info_code: None },
            Code::DestinationUnavailable => Error::DestinationUnavailable,
            Code::DestinationProhibited => Error::DestinationIpProhibited,
            Code::ConnectionRefused => Error::ConnectionRefused,
            Code::ConnectionTerminated => Error::ConnectionTerminated,
            Code::ConnectionTimeout => Error::ConnectionTimeout,
            Code::ReadTimeout => Error::ConnectionReadTimeout,
            Code::TlsProtocol => Error::TlsProtocolError,
            Code::TlsCertificate => Error::TlsCertificateError,
            Code::RequestDenied => Error::HttpRequestDenied,
            Code::RequestUri => Error::HttpRequestUriInvalid,
            Code::RequestBodySize => Error::HttpRequestBodySize(None),
            Code::RequestTrailers => Error::HttpRequestTrailerSectionSize(None),
            Code::AnswerIncomplete => Error::HttpResponseIncomplete,
            Code::AnswerHeaders => Error::HttpResponseHeaderSectionSize(None),
            Code::AnswerBodySize => Error::HttpResponseBodySize(None),
            Code::AnswerTimeout => Error::HttpResponseTimeout,
            Code::Protocol => Error::HttpProtocolError,
            Code::Internal => Error::InternalError(Some(self.message)),
        }
    }
}

/// As it is recorded.
impl From<Failure> for PlatformError {
    fn from(failure: Failure) -> Self {
        let known = CODES.into_iter().find(|(code, ..)| *code == failure.code);
        let (word, kind) = known.map_or(("internal-error", ErrorKind::Unavailable), |(_, word, kind)| (word, kind));
        Self { code: Some(word.to_owned()), ..Self::new(kind, failure.message) }
    }
}

/// Out of the record. What a person has written there, as an answer of a test, has a kind and no code.
impl From<PlatformError> for Failure {
    fn from(error: PlatformError) -> Self {
        let known = CODES.into_iter().find(|(_, word, _)| Some(*word) == error.code.as_deref());
        let usual = match error.kind {
            ErrorKind::Denied => Code::RequestDenied,
            ErrorKind::Timeout => Code::AnswerTimeout,
            ErrorKind::Unavailable => Code::DestinationUnavailable,
            _ => Code::Internal,
        };
        Self::new(known.map_or(usual, |(code, ..)| code), error.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_comes_out_of_the_record_as_it_went_in() {
        for (code, ..) in CODES {
            let recorded = PlatformError::from(Failure::new(code, "why"));
            let back = Failure::from(recorded);
            assert_eq!((back.code, back.message.as_str()), (code, "why"));
        }
    }
}
