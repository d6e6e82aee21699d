package modhost

import (
	log "github.com/modhost/modhost/sdk-guest/go/internal/bindings/modhost_module_message_log"
	types "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wit/types"
)

// Step is a line shown under the reply while it is being made, with a spinner until it is closed.
//
//	step, err := modhost.StartStep("Searching knowledge base…")
//	if err != nil {
//		return err
//	}
//	defer step.Close()
//	hits, err := modhost.Search(query)
//	if err != nil {
//		return err // the user sees that the step failed, or that it is tried again
//	}
//	err = step.Done(fmt.Sprintf("Found %d documents", len(hits)))
type Step struct {
	entry  *log.Entry
	change log.Change
	closed bool
}

// StartStep shows a new step below the earlier ones.
func StartStep(text string) (*Step, error) {
	if err := closeLeft(); err != nil {
		return nil, err
	}
	entry, err := answered("message-log.create", log.EntryCreate(text, log.StatusRunning))
	if err != nil {
		return nil, err
	}
	return &Step{entry: entry}, nil
}

// Details sets details in the platform's own shape, an object. The user sees them with the next Update, Done or Fail.
func (s *Step) Details(details any) error {
	text, err := toJSON("details", details)
	if err != nil {
		return err
	}
	s.change.Details = types.Some(text)
	return nil
}

// References names the sources the step found. The user sees them with the next Update, Done or Fail.
func (s *Step) References(references []Reference) {
	s.change.References = witReferences(references)
}

// Update shows another text; the step goes on. An empty one leaves the text as it is.
func (s *Step) Update(text string) error {
	s.change.Text = optional(text)
	change := s.change
	s.change = log.Change{}
	return done("message-log.update", s.entry.Update(change))
}

// Done closes the step as done, with this text; an empty one leaves it as it was.
func (s *Step) Done(text string) error { return s.close(text, log.StatusCompleted) }

// Fail closes the step as failed, with this text; an empty one leaves it as it was. The delivery needn't fail with it.
func (s *Step) Fail(text string) error { return s.close(text, log.StatusFailed) }

// Close is for defer: a step that is neither done nor failed, because its function returned early or panicked, has failed.
// That is shown when the module goes on without it: with the next step, or when the event is answered. If the event isn't
// answered, the host closes the step, since only the host knows whether there is another try. Once it is done or failed,
// Close does nothing.
func (s *Step) Close() {
	if !s.closed {
		left = append(left, s)
	}
}

// left has the steps that were left without having been done or failed.
var left []*Step

// closeLeft closes them as failed: the module goes on.
func closeLeft() error {
	for len(left) > 0 {
		step := left[0]
		left = left[1:]
		if step.closed {
			continue
		}
		if err := step.Fail(""); err != nil {
			return err
		}
	}
	return nil
}

// ID is the platform's id of the step.
func (s *Step) ID() string { return s.entry.Id() }

func (s *Step) close(text string, status log.Status) error {
	s.change.Status = types.Some(status)
	if err := s.Update(text); err != nil {
		return err
	}
	s.closed = true
	return nil
}
