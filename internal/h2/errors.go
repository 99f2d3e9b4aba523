package h2

import (
	"fmt"

	"golang.org/x/net/http2"
)

// ConnError is a connection error (RFC 9113, Section 5.4.1).
type ConnError struct {
	Code   http2.ErrCode
	Reason string // suitable for GOAWAY's debug data
}

// Error returns the name of the code, and the reason.
func (e *ConnError) Error() string {
	return fmt.Sprintf("http2: connection error: %v: %s", e.Code, e.Reason)
}

// ProtocolError returns a connection error of type PROTOCOL_ERROR.
func ProtocolError(reason string) *ConnError {
	return &ConnError{http2.ErrCodeProtocol, reason}
}

// FrameSizeError returns a connection error of type FRAME_SIZE_ERROR.
func FrameSizeError(reason string) *ConnError {
	return &ConnError{http2.ErrCodeFrameSize, reason}
}

// FlowControlError returns a connection error of type FLOW_CONTROL_ERROR.
func FlowControlError(reason string) *ConnError {
	return &ConnError{http2.ErrCodeFlowControl, reason}
}

// CompressionError returns the connection error for a field block that cannot be decoded (RFC 9113, Section 4.3).
func CompressionError(err error) *ConnError {
	return &ConnError{http2.ErrCodeCompression, err.Error()}
}

// EnhanceYourCalm returns a connection error of type ENHANCE_YOUR_CALM, for a peer that exceeds a limit of ours (RFC
// 9113, Section 10.5).
func EnhanceYourCalm(reason string) *ConnError {
	return &ConnError{http2.ErrCodeEnhanceYourCalm, reason}
}
