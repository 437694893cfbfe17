package etcd

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Etcd logs for operators of etcd: below an error, nothing of it concerns those who run sluice every day.
func quiet(level zapcore.Level) slog.Level {
	switch {
	case level >= zapcore.ErrorLevel:
		return slog.LevelWarn
	default:
		return slog.LevelDebug
	}
}

// zapTo returns a zap logger that writes to log. fatal, when set, runs in place of the end of the process.
func zapTo(log *slog.Logger, level func(zapcore.Level) slog.Level, fatal zapcore.CheckWriteHook) *zap.Logger {
	opts := []zap.Option{}
	if fatal != nil {
		opts = append(opts, zap.WithFatalHook(fatal), zap.WithPanicHook(fatal))
	}
	return zap.New(&core{handler: log.Handler(), level: level}, opts...)
}

// core is a zapcore.Core on top of a slog.Handler.
type core struct {
	handler slog.Handler
	level   func(zapcore.Level) slog.Level
}

func (c *core) Enabled(l zapcore.Level) bool {
	return c.handler.Enabled(context.Background(), c.level(l))
}

func (c *core) With(fields []zapcore.Field) zapcore.Core {
	return &core{handler: c.handler.WithAttrs(attrs(fields)), level: c.level}
}

func (c *core) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c *core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	rec := slog.NewRecord(e.Time, c.level(e.Level), "etcd: "+e.Message, 0)
	rec.AddAttrs(attrs(fields)...)
	return c.handler.Handle(context.Background(), rec)
}

func (*core) Sync() error { return nil }

func attrs(fields []zapcore.Field) []slog.Attr {
	enc := zapcore.NewMapObjectEncoder()
	out := make([]slog.Attr, 0, len(fields))
	for _, f := range fields {
		f.AddTo(enc)
	}
	for _, f := range fields {
		if v, ok := enc.Fields[f.Key]; ok {
			out = append(out, slog.Any(f.Key, v))
		}
	}
	return out
}
