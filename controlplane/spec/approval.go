package spec

import "time"

// maxApproval is as long as an approval may say that nothing is held: one that is forgotten would be no guard.
const maxApproval = 24 * time.Hour

// Validate returns what is wrong with a.
func (a Approval) Validate() []FieldError {
	c := newChecker()
	if a.Until != nil {
		switch {
		case a.At != nil && !a.Until.After(*a.At):
			c.in("until").add("is not after at: leave it out, or name a later time")
		case a.At != nil && a.Until.Sub(*a.At) > maxApproval:
			c.in("until").add("is more than %s after at: set the guard of the upstream instead", short(maxApproval))
		}
	}
	c.in("note").text(a.Note, 1000)
	return *c.errs
}
