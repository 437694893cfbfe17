package nginx

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"sluice/templates"
)

// openInclude makes sure that the operator's nginx.conf includes what we write, and that there is something to include:
// nginx must be able to start before the first Apply.
func (d *Driver) openInclude() error {
	if d.linked(current) == "" {
		empty := templates.Bundle{Files: []templates.File{{Path: "http.conf", Data: []byte("# nothing yet\n"), Mode: 0o644}}}
		s, err := d.stageEmpty(empty)
		if err != nil {
			return err
		}
		if err := d.link(current, s.ID); err != nil {
			return err
		}
	}
	conf, err := os.ReadFile(d.o.NginxConf)
	if err != nil {
		return fmt.Errorf("read the operator's nginx.conf: %w", err)
	}
	if _, ok := findInclude(string(conf), d.includePath()); !ok {
		return fmt.Errorf("%s does not include sluice's configuration: add this line to its http block: include %s;",
			d.o.NginxConf, d.includePath())
	}
	if d.o.PIDFile == "" {
		d.o.PIDFile = d.binary.pidPath
		if path, ok := findDirective(string(conf), "pid"); ok {
			if !filepath.IsAbs(path) {
				return fmt.Errorf("%s: the pid file %q is relative to a prefix: name it with its absolute path in the settings", d.o.NginxConf, path)
			}
			d.o.PIDFile = path
		}
	}
	return nil
}

// stageEmpty stages a configuration that has no control server.
func (d *Driver) stageEmpty(b templates.Bundle) (staged, error) {
	render := d.o.Control
	d.o.Control = func(templates.Control) ([]templates.File, error) { return nil, nil }
	defer func() { d.o.Control = render }()
	s, err := d.stage(b, manifest{})
	if err != nil {
		return staged{}, err
	}
	return s, s.sync()
}

func (d *Driver) includePath() string { return filepath.Join(d.Base(), "http.conf") }

// testInclude tests a copy of the operator's nginx.conf that includes what is staged. The copy lies beside it, so that
// relative paths lead to the same files. Warnings that are there without us are not ours.
func (d *Driver) testInclude(ctx context.Context, s staged) ([]logLine, error) {
	text, err := os.ReadFile(d.o.NginxConf)
	if err != nil {
		return nil, fmt.Errorf("read the operator's nginx.conf: %w", err)
	}
	at, ok := findInclude(string(text), d.includePath())
	if !ok {
		return nil, fmt.Errorf("%s does not include sluice's configuration any more: add this line to its http block: include %s;",
			d.o.NginxConf, d.includePath())
	}
	conf := string(text)
	with := conf[:at.from] + filepath.Join(s.dir, "http.conf") + conf[at.to:]
	lines, err := d.testCopy(ctx, with, s.ID)
	if err != nil || len(lines) == 0 {
		return lines, err
	}
	// In place of the include stands another one, of nothing: the line numbers stay.
	without := conf[:at.from] + os.DevNull + conf[at.to:]
	before, err := d.testCopy(ctx, without, s.ID)
	if err != nil {
		return before, fmt.Errorf("%s is not valid even without sluice's part: %w", d.o.NginxConf, err)
	}
	return slices.DeleteFunc(lines, func(l logLine) bool {
		i := slices.IndexFunc(before, func(b logLine) bool { return b.text == l.text })
		if i >= 0 {
			before = slices.Delete(before, i, i+1) // once more than before is ours
		}
		return i >= 0
	}), nil
}

func (d *Driver) testCopy(ctx context.Context, conf, id string) ([]logLine, error) {
	path := filepath.Join(filepath.Dir(d.o.NginxConf), ".sluice-test-"+id+".conf")
	err := writeFile(path, []byte(conf), 0o600)
	if errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return nil, fmt.Errorf("the test needs a copy of nginx.conf beside it, so that relative paths hold: "+
			"let sluice write to %s (under systemd: ReadWritePaths=%s): %w", filepath.Dir(path), filepath.Dir(path), err)
	}
	if err != nil {
		return nil, fmt.Errorf("copy nginx.conf for the test: %w", err)
	}
	defer os.Remove(path)
	lines, err := d.testFile(ctx, path)
	for i := range lines { // the operator knows the file by its own name
		lines[i].text = strings.ReplaceAll(lines[i].text, path, d.o.NginxConf)
	}
	return lines, err
}

// span is a part of a text.
type span struct{ from, to int }

// findInclude returns where, in an http block of conf, the path of an include directive stands.
func findInclude(conf, path string) (at span, ok bool) {
	walk(conf, func(blocks []string, words []word) {
		if len(blocks) == 1 && blocks[0] == "http" && len(words) == 2 && words[0].text == "include" && words[1].text == path {
			at, ok = words[1].span, true
		}
	})
	return at, ok
}

// findDirective returns the argument of a directive outside of all blocks.
func findDirective(conf, name string) (argument string, ok bool) {
	walk(conf, func(blocks []string, words []word) {
		if len(blocks) == 0 && len(words) == 2 && words[0].text == name {
			argument, ok = words[1].text, true
		}
	})
	return argument, ok
}

// word is one word of a directive; text is without quotes.
type word struct {
	span
	text string
}

// walk shows every directive that ends with a semicolon, with the names of the blocks that it is in. It splits as nginx
// does: words end at white space, ; and {, quotes only at their like, # starts a comment where a word would start.
func walk(conf string, directive func(blocks []string, words []word)) {
	var blocks []string
	var words []word
	for i := 0; i < len(conf); {
		switch c := conf[i]; c {
		case ' ', '\t', '\r', '\n':
			i++
		case '#':
			if end := strings.IndexByte(conf[i:], '\n'); end >= 0 {
				i += end
			} else {
				i = len(conf)
			}
		case ';':
			directive(blocks, words)
			words = nil
			i++
		case '{':
			name := ""
			if len(words) > 0 {
				name = words[0].text
			}
			words = nil
			i++
			if strings.HasSuffix(name, "_by_lua_block") {
				i = skipLua(conf, i)
				continue
			}
			blocks = append(slices.Clip(blocks), name)
		case '}':
			blocks = blocks[:max(len(blocks)-1, 0)]
			words = nil
			i++
		default:
			w := scan(conf, i)
			words = append(words, w)
			i = w.to
			if c == '"' || c == '\'' {
				i++
			}
		}
	}
}

// scan returns the word that starts at i; of a quoted one, the span without the quotes.
func scan(conf string, i int) word {
	start, quote := i, byte(0)
	if conf[i] == '"' || conf[i] == '\'' {
		quote = conf[i]
		start++
	}
	end := start
	for ; end < len(conf); end++ {
		c := conf[end]
		switch {
		case c == '\\':
			end++
		case quote != 0 && c == quote:
			return word{span{start, end}, conf[start:end]}
		case quote == 0 && (strings.IndexByte(" \t\r\n;", c) >= 0 || c == '{' && conf[end-1] != '$'):
			return word{span{start, end}, conf[start:end]}
		}
	}
	end = min(end, len(conf))
	return word{span{start, end}, conf[start:end]}
}

// skipLua returns where a block of Lua ends. Braces in Lua are in pairs but for strings, where they seldom are not.
func skipLua(conf string, i int) int {
	for depth := 1; i < len(conf); i++ {
		switch conf[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return i
}
