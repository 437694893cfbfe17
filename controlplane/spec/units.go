package spec

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration that is written as Go writes it: "75s", "1h30m", "250ms".
type Duration time.Duration

// MarshalText writes d as time.Duration does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what time.ParseDuration reads.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration: write it as 75s, 250ms or 1h30m", text)
	}
	*d = Duration(v)
	return nil
}

// Size is a number of bytes that is written as nginx writes it: "4k", "1m", "512".
type Size int64

// MarshalText writes s in the largest unit that divides it.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s Size) String() string {
	switch {
	case s != 0 && s%(1<<20) == 0:
		return strconv.FormatInt(int64(s)>>20, 10) + "m"
	case s != 0 && s%(1<<10) == 0:
		return strconv.FormatInt(int64(s)>>10, 10) + "k"
	default:
		return strconv.FormatInt(int64(s), 10)
	}
}

// UnmarshalText reads a number of bytes with an optional k or m.
func (s *Size) UnmarshalText(text []byte) error {
	digits, factor := strings.ToLower(string(text)), int64(1)
	if d, ok := strings.CutSuffix(digits, "k"); ok {
		digits, factor = d, 1<<10
	} else if d, ok := strings.CutSuffix(digits, "m"); ok {
		digits, factor = d, 1<<20
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > (1<<40)/factor {
		return fmt.Errorf("%q is not a size: write it as 512, 4k or 1m", text)
	}
	*s = Size(n * factor)
	return nil
}
