package templates

import (
	"strings"
	"testing"
	"time"
)

// unquote reads one argument as nginx's lexer (ngx_conf_read_token) does; ok is false when text is not exactly one.
func unquote(text string) (value string, ok bool) {
	var b strings.Builder
	quoted := text != "" && (text[0] == '"' || text[0] == '\'')
	end := byte(0)
	if quoted {
		end, text = text[0], text[1:]
	}
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\\':
			if i++; i == len(text) {
				return "", false
			}
			switch text[i] {
			case '"', '\'', '\\':
				b.WriteByte(text[i])
			case 't':
				b.WriteByte('\t')
			case 'r':
				b.WriteByte('\r')
			case 'n':
				b.WriteByte('\n')
			default:
				b.WriteByte('\\')
				b.WriteByte(text[i])
			}
		case quoted && c == end:
			return b.String(), i == len(text)-1
		case !quoted && strings.IndexByte(" \t\r\n;{", c) >= 0, c == '$':
			return "", false
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), !quoted && b.Len() > 0
}

func TestQuote(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, want string }{
		{"plain-1.0/x", "plain-1.0/x"},
		{"", `""`},
		{"two words", `"two words"`},
		{`say "hi"`, `"say \"hi\""`},
		{`a\b`, `"a\\b"`},
		{`ends\`, `"ends\\"`},
		{"a;b{c}#d", `"a;b{c}#d"`},
		{"it's", `"it's"`},
		{`\n`, `"\\n"`},
		{"grüß", `"grüß"`},
	} {
		got, err := quote(tt.in)
		if err != nil || string(got) != tt.want {
			t.Errorf("quote(%q) = %s, %v; want %s", tt.in, got, err, tt.want)
		}
	}
	for _, in := range []string{"a\nb", "a\rb", "a\tb", "\x00", "\x7f", "$", "cost: 5$", "${x}", "\xff"} {
		if got, err := quote(in); err == nil {
			t.Errorf("quote(%q) = %s, want an error", in, got)
		}
	}
}

// FuzzQuote proves that nginx reads back what was quoted.
func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", "a", `\`, `\\`, `"`, `'`, `\"`, `a b`, "a;b", "{", "}", "#", `\t`, "é", "a'b\"c\\d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text, err := quote(s)
		if err != nil {
			return
		}
		if got, ok := unquote(string(text)); !ok || got != s {
			t.Errorf("%q is written as %s, which nginx reads as %q (one argument: %t)", s, text, got, ok)
		}
	})
}

func TestDuration(t *testing.T) {
	t.Parallel()
	for in, want := range map[time.Duration]token{
		0: "", time.Second: "1s", 90 * time.Second: "90s", 250 * time.Millisecond: "250ms", 1500 * time.Millisecond: "1500ms", 24 * time.Hour: "86400s",
	} {
		if got, err := duration(in); err != nil || got != want {
			t.Errorf("duration(%s) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []time.Duration{-1, time.Microsecond, 10000 * time.Hour} {
		if got, err := duration(in); err == nil {
			t.Errorf("duration(%s) = %q, want an error", in, got)
		}
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	for in, want := range map[int64]token{0: "0", 1: "1", 1023: "1023", 1024: "1k", 1536: "1536", 4096: "4k", 1 << 20: "1m", 1<<20 + 1024: "1025k"} {
		if got, err := size(in); err != nil || got != want {
			t.Errorf("size(%d) = %q, %v; want %q", in, got, err, want)
		}
	}
	if got, err := size(-1); err == nil {
		t.Errorf("size(-1) = %q, want an error", got)
	}
}
