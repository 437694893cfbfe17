package registry

import "errors"

// ErrAway says that the registry did not answer, or has no leader: whether what was asked for was done is not known.
var ErrAway = errors.New("the registry does not answer")

// Away marks err, whose text stays, as ErrAway.
func Away(err error) error { return &awayError{err} }

type awayError struct{ err error }

func (e *awayError) Error() string        { return e.err.Error() }
func (e *awayError) Unwrap() error        { return e.err }
func (e *awayError) Is(target error) bool { return target == ErrAway }
