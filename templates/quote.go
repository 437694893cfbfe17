package templates

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// token is text that stands safely in a configuration file. The templates see strings of no other type, and tokens are
// made of typed values, of text that an allow-list has passed, or by quote.
type token string

// bare tells whether c can stand in an unquoted argument. nginx ends one at white space, a semicolon or a brace.
func bare(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("/._-+:@%,=", c) >= 0
}

// quote writes s as one argument. It refuses control characters, which start new lines in logs and terminals, and the
// dollar sign, which starts a variable inside quotes too and cannot be escaped.
func quote(s string) (token, error) {
	if s == "" {
		return `""`, nil
	}
	if !utf8.ValidString(s) {
		return "", fmt.Errorf("%q is not UTF-8", s)
	}
	plain := true
	for i := range len(s) {
		switch c := s[i]; {
		case c < 0x20 || c == 0x7f:
			return "", fmt.Errorf("%q has a control character", s)
		case c == '$':
			return "", fmt.Errorf("%q has a dollar sign, which nginx would take for a variable", s)
		case !bare(c):
			plain = false
		}
	}
	if plain {
		return token(s), nil
	}
	// Of the escapes that nginx knows inside quotes, these two are needed; any other character stands for itself.
	return token(`"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`), nil
}

// absolute writes the absolute path of a file.
func absolute(s string) (token, error) {
	if !strings.HasPrefix(s, "/") {
		return "", fmt.Errorf("%q is not an absolute path", s)
	}
	return quote(s)
}

// directory writes the absolute path of a directory so that a path below it can follow.
func directory(s string) (token, error) {
	t, err := absolute(s)
	if err != nil {
		return "", err
	}
	if string(t) != s {
		return "", fmt.Errorf("%q has other characters than letters, digits and / . _ - + : @ %% , =", s)
	}
	return t + "/", nil
}

// objectName is what names upstreams, sites and certificates: it goes into file names and names of nginx's.
var objectName = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)

func name(s string) (token, error) {
	if !objectName.MatchString(s) {
		return "", fmt.Errorf("the name %q is not 1 to 63 lower-case letters, digits, dots, dashes and underscores", s)
	}
	return token(s), nil
}

var (
	hostLabel  = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$`)
	headerName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]{0,63}$`)
	unixPath   = regexp.MustCompile(`^/[A-Za-z0-9._/@+-]{1,106}$`) // sun_path holds 107 bytes and a NUL
	// The percent sign is missing because nginx compares with the decoded path.
	routePath = regexp.MustCompile(`^/[A-Za-z0-9/._~!&()*+,=:@-]*$`)
	// Variables whose value is the client's own, so that any of them can be a hash key.
	hashKey = regexp.MustCompile(`^\$(remote_addr|uri|host|(arg|cookie|http)_[A-Za-z0-9_]{1,64})$`)
)

// host writes a name as server_name takes it. A regular expression, which starts with a tilde, is none.
func host(s string) (token, error) {
	bare, _ := strings.CutPrefix(s, "*.")
	if len(s) > 253 {
		return "", fmt.Errorf("the host name %.40q… has more than 253 characters", s)
	}
	for label := range strings.SplitSeq(bare, ".") {
		if !hostLabel.MatchString(label) {
			return "", fmt.Errorf(`%q is not a host name, nor one like "*.example.com"`, s)
		}
	}
	return token(s), nil
}

// addressOf reads the address of a server or socket, with a port.
func addressOf(s string) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(s)
	switch {
	case err != nil:
		return a, fmt.Errorf("%q is not an IP address with a port", s)
	case a.Port() == 0:
		return a, fmt.Errorf("%q has no port to speak of", s)
	case a.Addr().Zone() != "":
		return a, fmt.Errorf("%q has a zone, which nginx does not take", s)
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), nil
}

// network writes an address or a network. Bits beyond its length are cleared: nginx warns of them.
func network(s string) (token, error) {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		return token(addr.Unmap().String()), nil
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return "", fmt.Errorf("%q is neither an address nor a network", s)
	}
	return token(prefix.Masked().String()), nil
}

// duration writes a time. nginx takes most of them in milliseconds; a zero is left out by the templates.
func duration(d time.Duration) (token, error) {
	switch {
	case d < 0:
		return "", fmt.Errorf("%s is negative", d)
	case d%time.Millisecond != 0:
		return "", fmt.Errorf("%s is finer than a millisecond", d)
	case d > 365*24*time.Hour:
		return "", fmt.Errorf("%s is more than a year", d)
	case d == 0:
		return "", nil
	case d%time.Second == 0:
		return token(strconv.FormatInt(int64(d/time.Second), 10) + "s"), nil
	default:
		return token(strconv.FormatInt(d.Milliseconds(), 10) + "ms"), nil
	}
}

// size writes a number of bytes in the largest unit that divides it.
func size(n int64) (token, error) {
	switch {
	case n < 0:
		return "", errors.New("a size is negative")
	case n > 0 && n%(1<<20) == 0:
		return token(strconv.FormatInt(n>>20, 10) + "m"), nil
	case n > 0 && n%(1<<10) == 0:
		return token(strconv.FormatInt(n>>10, 10) + "k"), nil
	default:
		return token(strconv.FormatInt(n, 10)), nil
	}
}
