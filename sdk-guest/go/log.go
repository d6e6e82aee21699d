package modhost

import (
	"context"
	"log/slog"
	"strings"

	wit "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wasi_logging_logging"
)

// Additional levels to those of [log/slog].
const (
	// LevelTrace is for the detailed flow of the program, below [slog.LevelDebug].
	LevelTrace = slog.Level(-8)
	// LevelCritical is for errors that stop the module, above [slog.LevelError].
	LevelCritical = slog.Level(12)
)

func init() { slog.SetDefault(slog.New(logHandler{})) }

// logHandler writes to the operators' log. It is the default handler of log/slog, and so of log.
type logHandler struct {
	// The attributes added by With, formatted.
	attributes string
	group      string
}

// Enabled returns true for all levels, because the operators decide which lines are kept.
func (logHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h logHandler) Handle(_ context.Context, record slog.Record) error {
	var text strings.Builder
	text.WriteString(record.Message)
	text.WriteString(h.attributes)
	record.Attrs(func(attribute slog.Attr) bool {
		h.write(&text, h.group, attribute)
		return true
	})
	wit.Log(levelOf(record.Level), "", text.String())
	return nil
}

func (h logHandler) WithAttrs(attributes []slog.Attr) slog.Handler {
	var text strings.Builder
	text.WriteString(h.attributes)
	for _, attribute := range attributes {
		h.write(&text, h.group, attribute)
	}
	h.attributes = text.String()
	return h
}

func (h logHandler) WithGroup(name string) slog.Handler {
	if name != "" {
		h.group += name + "."
	}
	return h
}

func (h logHandler) write(text *strings.Builder, group string, attribute slog.Attr) {
	value := attribute.Value.Resolve()
	if value.Kind() == slog.KindGroup {
		if attribute.Key != "" {
			group += attribute.Key + "."
		}
		for _, inner := range value.Group() {
			h.write(text, group, inner)
		}
		return
	}
	if attribute.Equal(slog.Attr{}) {
		return
	}
	text.WriteString(" " + group + attribute.Key + "=" + value.String())
}

func levelOf(level slog.Level) wit.Level {
	switch {
	case level < slog.LevelDebug:
		return wit.LevelTrace
	case level < slog.LevelInfo:
		return wit.LevelDebug
	case level < slog.LevelWarn:
		return wit.LevelInfo
	case level < slog.LevelError:
		return wit.LevelWarn
	case level < LevelCritical:
		return wit.LevelError
	default:
		return wit.LevelCritical
	}
}
