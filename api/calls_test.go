package api_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"sluice/controlplane/spec"
)

// call is a request as the fuzzer sends it.
type call struct {
	operation      string
	method, target string
	headers        []string // "Name: value"
	body           string
	cut            bool // the sender leaves before the end of the body
}

// endpoint is an operation and where it is.
type endpoint struct {
	*openapi3.Operation
	method, path string
	parameters   openapi3.Parameters
}

// endpoints are all operations of the document, sorted.
func endpoints() []endpoint {
	var out []endpoint
	for path, item := range document.Paths.Map() {
		for method, op := range item.Operations() {
			out = append(out, endpoint{op, method, path, slices.Concat(item.Parameters, op.Parameters)})
		}
	}
	slices.SortFunc(out, func(a, b endpoint) int { return cmp.Compare(a.OperationID, b.OperationID) })
	return out
}

// caller makes requests from the document: such that it allows, and such that are wrong somewhere. One seed always makes the
// same.
type caller struct {
	*rand.Rand
	endpoints []endpoint
	pair      spec.Certificate // a key that must not be seen again
	wild      float64          // the share of values that are not what the document says
}

func newCaller(seed uint64, pair spec.Certificate) *caller {
	return &caller{Rand: rand.New(rand.NewPCG(seed, 0)), endpoints: endpoints(), pair: pair}
}

func (c *caller) chance(share float64) bool { return c.Float64() < share }

func pick[T any](c *caller, of []T) T { return of[c.IntN(len(of))] }

// known are values that fit together, so that requests meet what others have left.
var known = map[string][]string{
	"name": {"io", "chat", "main", "a.b_c-d"}, "service": {"io", "io", "chat", "endpoints:a"}, "upstream": {"io", "chat"}, "certificate": {"main"},
	"owner": {"team", "other"}, "id": {"n1", "n2", "a/b", "50% ü?#", "x%2Fy"}, "seq": {"0", "1", "2", "3", "5", "8", "13"}, "from": {"0", "1", "3", "io"}, "to": {"0", "2", "5"},
	"node": {"io/n1", "io/a/b", "chat/n2"}, "wait": {"1ms", "1s"}, "If-Match": {`"1"`, `"2"`, `"3"`, "*"}, "kind": {"site", "token"}, "incarnation": {"a", "b"},
	"Last-Event-ID": {"1-0"}, "address": {"10.0.0.7", "fd00::1", "unix:/run/n1.sock", "127.0.0.1"}, "gateway": {"edge-1", "edge-2"},
}

// strange are texts that are no good, or are good and rarely met.
var strange = []string{
	"", " ", ".", "..", "../../../etc/passwd", "/etc/passwd", "a/../b", "\x00", "io\x00", "a\nb", "a\r\nX-Evil: 1", "\x1b[31m", "\x7f", "\xff\xfe", "\xed\xa0\x80", "é\u0301", "\u202e", "\u2028",
	"\ufeff", "👾", "İ", "%00", "%2e%2e", "%", "%zz", "{{.}}", "${jndi:x}", "$(id)", "'; --", `"; } server {`, "# }", "<script>alert(1)</script>", "=cmd", "null", "true", "-1", "0x10", "1e3", "٣", "١٢",
	"9223372036854775807", "9223372036854775808", "-9223372036854775809", "NaN", "*", "sluice_ops_" + strings.Repeat("0", 64), "unix:", "[::1]", "0.0.0.0", "169.254.169.254",
	strings.Repeat("x", 64), strings.Repeat("ü", 254), strings.Repeat("io,", 400), strings.Repeat("../", 300),
}

// text returns a text for a parameter or a field.
func (c *caller) text(name string, s *openapi3.Schema) string {
	switch {
	case c.chance(c.wild):
		return pick(c, strange)
	case len(s.Enum) > 0:
		return fmt.Sprint(pick(c, s.Enum))
	case len(known[name]) > 0 && c.chance(.8):
		return pick(c, known[name])
	case s.Format == "date-time":
		return pick(c, []string{"2026-01-02T03:04:05Z", "2036-01-02T03:04:05.678+02:00", "0001-01-01T00:00:00Z"})
	case s.Pattern != "":
		if re, err := syntax.Parse(s.Pattern, syntax.Perl); err == nil {
			return c.matching(re)
		}
	}
	if example, ok := s.Example.(string); ok && c.chance(.8) {
		return example
	}
	length := int(s.MinLength)
	if s.MaxLength != nil {
		length = pick(c, []int{length, int(*s.MaxLength), int(*s.MaxLength) + 1})
	}
	return strings.Repeat(pick(c, []string{"a", "é"}), max(length, c.IntN(3)))
}

// matching returns a text that a regular expression matches.
func (c *caller) matching(re *syntax.Regexp) string {
	var b strings.Builder
	repeat := func(low, high int) {
		for range low + c.IntN(high-low+1) {
			b.WriteString(c.matching(re.Sub[0]))
		}
	}
	switch re.Op {
	case syntax.OpLiteral:
		b.WriteString(string(re.Rune))
	case syntax.OpCharClass:
		i := 2 * c.IntN(len(re.Rune)/2)
		b.WriteRune(re.Rune[i] + c.Int32N(min(re.Rune[i+1]-re.Rune[i], 60)+1))
	case syntax.OpConcat, syntax.OpCapture:
		for _, sub := range re.Sub {
			b.WriteString(c.matching(sub))
		}
	case syntax.OpAlternate:
		b.WriteString(c.matching(pick(c, re.Sub)))
	case syntax.OpQuest:
		repeat(0, 1)
	case syntax.OpStar:
		repeat(0, 3)
	case syntax.OpPlus:
		repeat(1, 3)
	case syntax.OpRepeat:
		repeat(re.Min, max(re.Max, re.Min))
	}
	return b.String()
}

func (c *caller) number(s *openapi3.Schema) string {
	if c.chance(c.wild) {
		return pick(c, []string{"-1", "0", "1e2", "1.5", "-0", "01", "65536", "2147483648", "9223372036854775808", "1e400", "1e-400", "-1e999999999", strings.Repeat("9", 400), "NaN", "0x1"})
	}
	low, high := 0.0, 100.0
	if s.Min != nil {
		low = *s.Min
	}
	if s.Max != nil {
		high = *s.Max
	}
	return fmt.Sprintf("%.0f", pick(c, []float64{low, low + 1, high, high + math.Ceil(c.wild)}))
}

// parameter returns a value as text.
func (c *caller) parameter(name string, s *openapi3.Schema) string {
	switch {
	case c.chance(c.wild):
		return pick(c, strange)
	case s.Type.Is(openapi3.TypeBoolean):
		return pick(c, []string{"true", "false"})
	case s.Type.Is(openapi3.TypeInteger) && (len(known[name]) == 0 || c.chance(.2)):
		return c.number(s)
	default:
		return c.text(name, s)
	}
}

// next makes a request.
func (c *caller) next() call {
	c.wild = pick(c, []float64{0, 0, 0, .03, .1, .3})
	e := pick(c, c.endpoints)
	for e.RequestBody == nil && c.chance(.5) { // most of what can go wrong is in bodies
		e = pick(c, c.endpoints)
	}
	out := call{operation: e.OperationID, method: e.method, target: e.path}
	var query []string
	for _, ref := range e.parameters {
		p := ref.Value
		if !p.Required && c.chance(.6) || p.Name == "dryRun" && c.chance(.7) {
			continue
		}
		value := c.parameter(p.Name, p.Schema.Value)
		switch p.In {
		case openapi3.ParameterInPath:
			escaped := url.PathEscape(value)
			if c.chance(c.wild) {
				escaped = pick(c, []string{value, "%2e%2e%2f", "..%2f..%2fetc%2fpasswd", "%00", "%ff", "a%0d%0ab", "a%252fb", "%zz", ";", "a//b", "%2F", "", strings.Repeat("a%2F", 3000)})
			}
			out.target = strings.Replace(out.target, "{"+p.Name+"}", escaped, 1)
		case openapi3.ParameterInQuery:
			query = append(query, p.Name+"="+url.QueryEscape(value))
		case openapi3.ParameterInHeader:
			out.headers = append(out.headers, p.Name+": "+strings.NewReplacer("\r", "", "\n", "", "\x00", "").Replace(value))
		}
	}
	if c.chance(c.wild) {
		query = append(query, pick(c, []string{"x=1", "limit=1&limit=1", "dryRun", "a;b", "%zz=1", "&&=", "wait=%00", "[]=1", strings.Repeat("a", 5000) + "=1"}))
	}
	if len(query) > 0 {
		out.target += "?" + strings.Join(query, "&")
	}
	if e.RequestBody != nil {
		c.addBody(&out, e)
	} else if c.chance(c.wild) {
		out.body = pick(c, []string{"{}", "x", strings.Repeat(" ", 2<<20)})
	}
	return out
}

func (c *caller) addBody(out *call, e endpoint) {
	var kind string
	for media, content := range e.RequestBody.Value.Content {
		kind = media
		out.body = c.json("", c.patched(e, content.Schema), 0)
	}
	if c.chance(c.wild) {
		kind = pick(c, []string{"", "text/plain", "application/json; charset=utf-16", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json, text/plain", "a/b/c;;=", "application/merge-patch+json"})
	}
	if kind != "" {
		out.headers = append(out.headers, "Content-Type: "+kind)
	}
	if c.chance(c.wild) {
		switch at := c.IntN(len(out.body) + 1); c.IntN(6) {
		case 0:
			out.body = out.body[:at]
		case 1:
			out.body = out.body[:at] + pick(c, strange) + out.body[at:]
		case 2:
			out.body += out.body
		case 3:
			out.body = pick(c, []string{"", "null", "[]", `""`, "0", "\ufeff{}", "{", `{"a":1,"a":2}`, strings.Repeat("[", 100_000), strings.Repeat(`{"a":`, 100_000), strings.Repeat(" ", 2<<20) + "{}"})
		case 4:
			out.headers = append(out.headers, "Content-Encoding: gzip")
		case 5:
			out.cut = true
		}
	}
}

// patched returns the schema of a body: that of a merge patch is the object's.
func (c *caller) patched(e endpoint, ref *openapi3.SchemaRef) *openapi3.Schema {
	if e.method == http.MethodPatch {
		ref = document.Paths.Find(e.path).Put.RequestBody.Value.Content.Get("application/json").Schema
	}
	return ref.Value
}

// json returns a value for a schema as JSON text.
func (c *caller) json(name string, s *openapi3.Schema, depth int) string {
	if c.chance(c.wild / 4) {
		return pick(c, []string{"null", "true", "[]", "{}", "-1", "1e400", `"x"`, `"\ud800"`, `"\u0000"`, "\"\xff\"", `[null]`, `{"":null}`, `{"a":1,"a":1}`, "[[[[[[[[]]]]]]]]", "nul", strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000)})
	}
	switch {
	case s.Type.Is(openapi3.TypeObject):
		return c.object(name, s, depth)
	case s.Type.Is(openapi3.TypeArray):
		items := make([]string, max(int(s.MinItems), c.IntN(3)))
		if c.chance(c.wild / 20) {
			items = make([]string, 500)
		}
		for i := range items {
			items[i] = c.json(name, s.Items.Value, depth+1)
		}
		return "[" + strings.Join(items, ",") + "]"
	case s.Type.Is(openapi3.TypeBoolean):
		return pick(c, []string{"true", "false"})
	case s.Type.Is(openapi3.TypeInteger), s.Type.Is(openapi3.TypeNumber):
		return c.number(s)
	case s.WriteOnly && c.chance(.7):
		return quoted(c.secret())
	case name == "chain" && c.chance(.7):
		if c.chance(c.wild) {
			return quoted(c.pair.Chain + c.secret())
		}
		return quoted(c.pair.Chain)
	default:
		return quoted(c.text(name, s))
	}
}

// secret returns the planted key, or what is left of it.
func (c *caller) secret() string {
	switch key := c.pair.Key; {
	case c.wild == 0 || c.chance(.5):
		return key
	case c.chance(.5):
		return key[:len(key)/2+c.IntN(len(key)/2)]
	default:
		return strings.Replace(key, "PRIVATE KEY", pick(c, []string{"CERTIFICATE", "EC PRIVATE KEY", "PRIVATE KEY-----\n\n-----"}), c.IntN(3))
	}
}

// quoted keeps bytes that are not UTF-8, which json.Marshal would mend.
func quoted(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, part := range strings.SplitAfter(text, "\xff") {
		clean := strings.TrimSuffix(part, "\xff")
		data, err := json.Marshal(clean)
		if err != nil {
			panic(err) // never: it is a string
		}
		b.Write(data[1 : len(data)-1])
		b.WriteString(part[len(clean):])
	}
	b.WriteByte('"')
	return b.String()
}

func (c *caller) object(name string, s *openapi3.Schema, depth int) string {
	if example, err := json.Marshal(s.Example); s.Example != nil && err == nil && c.chance(.2) {
		return string(example)
	}
	if s.Properties["key"] != nil && s.Properties["chain"] != nil && c.chance(.7) { // seldom right by chance
		return `{"chain":` + c.json("chain", s.Properties["chain"].Value, depth+1) + `,"key":` + c.json("key", s.Properties["key"].Value, depth+1) + "}"
	}
	var members []string
	add := func(key, value string) { members = append(members, quoted(key)+":"+value) }
	names := make([]string, 0, len(s.Properties))
	for property := range s.Properties {
		names = append(names, property)
	}
	slices.Sort(names)
	for _, property := range names {
		required := slices.Contains(s.Required, property)
		if required && !c.chance(c.wild) || !required && c.chance(.25) {
			add(property, c.json(property, s.Properties[property].Value, depth+1))
		}
	}
	if of := s.AdditionalProperties.Schema; of != nil {
		for range c.IntN(3) {
			key := c.text(cmp.Or(map[string]string{"overrides": "node"}[name], "name"), of.Value)
			add(key, c.json(key, of.Value, depth+1))
		}
	}
	if c.chance(c.wild) {
		switch c.IntN(3) {
		case 0:
			add(pick(c, strange), "1")
		case 1:
			members = append(members, members...)
		default:
			add(pick(c, append(names, "x")), "null")
		}
	}
	return "{" + strings.Join(members, ",") + "}"
}
