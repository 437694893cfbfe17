package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Whatever starts sluice for somebody else (the image, the unit, make run) names flags that the binary has.
func TestPackagingNamesFlagsThatExist(t *testing.T) {
	t.Parallel()
	help := map[string]string{}
	for _, command := range []string{"run", "register", "status", "apply"} {
		out, err := exec.CommandContext(t.Context(), sluiceBinary, command, "--help").Output()
		if err != nil {
			t.Fatalf("sluice %s --help: %v", command, err)
		}
		help[command] = string(out)
	}
	for _, file := range []string{"Dockerfile", "packaging/systemd/sluice.service", "scripts/run.sh", "examples/socketio/README.md"} {
		commands := sluiceCommands(t, file)
		if len(commands) == 0 {
			t.Errorf("%s runs no sluice", file)
		}
		for _, c := range commands {
			for _, flag := range c.flags {
				if !strings.Contains(help[c.name], flag+" ") {
					t.Errorf("%s: sluice %s has no %s", file, c.name, flag)
				}
			}
		}
	}
}

type command struct {
	name  string
	flags []string
}

var (
	sluiceCommand = regexp.MustCompile(`(?:sluice"?|\[)[ ,]*"?(run|register|status|apply)\b(.*)`)
	longFlag      = regexp.MustCompile(`--[a-z][a-z-]*`)
)

// sluiceCommands returns the sluice commands in a file, one a line, with their flags.
func sluiceCommands(t *testing.T, file string) []command {
	t.Helper()
	text := strings.ReplaceAll(read(t, file), "\\\n", "")
	var commands []command
	for _, line := range strings.Split(text, "\n") {
		if found := sluiceCommand.FindStringSubmatch(line); found != nil && !strings.HasPrefix(strings.TrimSpace(line), "#") {
			own, _, _ := strings.Cut(found[2], " -- ") // what follows is another program's
			commands = append(commands, command{name: found[1], flags: longFlag.FindAllString(own, -1)})
		}
	}
	return commands
}

// The image has the packages of nginx that set-up installs for everybody else, and copies what exists.
func TestImageMatchesSetup(t *testing.T) {
	t.Parallel()
	setup := regexp.MustCompile(`nginx=\(([^)]*)\)`).FindStringSubmatch(read(t, "scripts/setup.sh"))
	if setup == nil {
		t.Fatal("scripts/setup.sh does not list nginx's packages")
	}
	image := strings.Fields(read(t, "Dockerfile"))
	for _, name := range strings.Fields(setup[1]) {
		if !slices.Contains(image, name) {
			t.Errorf("the image lacks the package %s", name)
		}
	}
	for _, source := range regexp.MustCompile(`(?m)^COPY ([^-].*) \S+$`).FindAllStringSubmatch(read(t, "Dockerfile"), -1) {
		for _, path := range strings.Fields(source[1]) {
			if _, err := os.Stat(filepath.Join(root, path)); err != nil {
				t.Errorf("the image copies what is not there: %v", err)
			}
		}
	}
}

// read returns the text of a file of the repository.
func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
