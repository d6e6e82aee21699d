package httpclient

import (
	modhost "github.com/modhost/modhost/sdk-guest/go"
	wasi "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wasi_http_types"
)

// The names of the error codes of wasi:http, in the order of their numbers.
var codeNames = [...]string{
	"DNS-timeout", "DNS-error", "destination-not-found", "destination-unavailable", "destination-IP-prohibited",
	"destination-IP-unroutable", "connection-refused", "connection-terminated", "connection-timeout",
	"connection-read-timeout", "connection-write-timeout", "connection-limit-reached", "TLS-protocol-error",
	"TLS-certificate-error", "TLS-alert-received", "HTTP-request-denied", "HTTP-request-length-required",
	"HTTP-request-body-size", "HTTP-request-method-invalid", "HTTP-request-URI-invalid", "HTTP-request-URI-too-long",
	"HTTP-request-header-section-size", "HTTP-request-header-size", "HTTP-request-trailer-section-size",
	"HTTP-request-trailer-size", "HTTP-response-incomplete", "HTTP-response-header-section-size",
	"HTTP-response-header-size", "HTTP-response-body-size", "HTTP-response-trailer-section-size",
	"HTTP-response-trailer-size", "HTTP-response-transfer-coding", "HTTP-response-content-coding",
	"HTTP-response-timeout", "HTTP-upgrade-failed", "HTTP-protocol-error", "loop-detected", "configuration-error",
	"internal-error",
}

// errorOf maps an error code of wasi:http to an error.
func errorOf(code wasi.ErrorCode) error {
	err := &modhost.Error{Call: call, Kind: kindOf(code.Tag()), Text: codeNames[code.Tag()]}
	if code.Tag() == wasi.ErrorCodeInternalError && code.InternalError().IsSome() {
		err.Text += ": " + code.InternalError().Some()
	}
	if err.Kind == modhost.ErrDenied {
		err.Text += "; the delivery's log shows what to add to `http` in modules.toml"
	}
	return err
}

func kindOf(tag uint8) error {
	switch tag {
	case wasi.ErrorCodeHttpRequestDenied, wasi.ErrorCodeDestinationIpProhibited:
		return modhost.ErrDenied
	case wasi.ErrorCodeDnsTimeout, wasi.ErrorCodeConnectionTimeout, wasi.ErrorCodeConnectionReadTimeout,
		wasi.ErrorCodeConnectionWriteTimeout, wasi.ErrorCodeHttpResponseTimeout:
		return modhost.ErrTimeout
	case wasi.ErrorCodeDnsError, wasi.ErrorCodeDestinationNotFound, wasi.ErrorCodeDestinationUnavailable,
		wasi.ErrorCodeDestinationIpUnroutable, wasi.ErrorCodeConnectionRefused, wasi.ErrorCodeConnectionTerminated,
		wasi.ErrorCodeConnectionLimitReached, wasi.ErrorCodeTlsProtocolError, wasi.ErrorCodeTlsCertificateError,
		wasi.ErrorCodeTlsAlertReceived, wasi.ErrorCodeHttpResponseIncomplete, wasi.ErrorCodeHttpProtocolError,
		wasi.ErrorCodeInternalError:
		return modhost.ErrUnavailable
	default:
		return modhost.ErrInvalid
	}
}
