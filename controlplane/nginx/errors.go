package nginx

import "fmt"

// Stage is a step of an Apply.
type Stage string

// The stages, in their order.
const (
	StageWrite  Stage = "stage"  // writing the files
	StageTest   Stage = "test"   // nginx -t
	StageStart  Stage = "start"  // nginx did not start
	StageReload Stage = "reload" // nginx did not take it, though the test had passed
	StageProve  Stage = "prove"  // nginx took it and then did not answer as it should
)

var stageText = map[Stage]string{
	StageWrite:  "the configuration could not be written",
	StageTest:   "nginx -t refused the configuration",
	StageStart:  "nginx did not start with the configuration",
	StageReload: "nginx refused the configuration at the reload, after nginx -t had passed",
	StageProve:  "nginx reloaded, but the configuration was not proven live",
}

// RefusedError says that a Bundle is not live. What was live before is live, unless Undo is set.
type RefusedError struct {
	Stage  Stage
	Output string // nginx's own words; paths are relative to the Bundle
	Err    error  // the cause, when it is not nginx's
	Undo   error  // why the last good configuration could not be brought back
}

func (e *RefusedError) Error() string {
	text := stageText[e.Stage]
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	if e.Output != "" {
		text += ": " + e.Output
	}
	if e.Undo != nil {
		text += fmt.Sprintf("; going back to the last good one failed too: %v", e.Undo)
	}
	return text
}

func (e *RefusedError) Unwrap() error { return e.Err }

// NotVisibleError says that nginx runs, or may run, where this process cannot see or signal it.
type NotVisibleError struct {
	What string // what is missing, and how to mend it
}

func (e *NotVisibleError) Error() string { return e.What }
