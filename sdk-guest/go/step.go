package modhost

import (
	log "github.com/modhost/modhost/sdk-guest/go/internal/bindings/modhost_module_message_log"
	types "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wit/types"
)

// Step is a progress step shown under the reply, with a spinner until it is closed.
//
//	step, err := modhost.StartStep("Searching knowledge base…")
//	if err != nil {
//		return err
//	}
//	defer step.Close()
//	hits, err := modhost.Search(query)
//	if err != nil {
//		return err // the user sees that the step failed, or that the host will retry
//	}
//	err = step.Done(fmt.Sprintf("Found %d documents", len(hits)))
type Step struct {
	entry  *log.Entry
	change log.Change
	closed bool
}

// StartStep creates a step below the earlier ones.
func StartStep(text string) (*Step, error) {
	if err := closeAbandoned(); err != nil {
		return nil, err
	}
	entry, err := unwrap("message-log.create", log.EntryCreate(text, log.StatusRunning))
	if err != nil {
		return nil, err
	}
	return &Step{entry: entry}, nil
}

// Details sets details in the platform's own shape, an object. The next Update, Done or Fail shows them.
func (s *Step) Details(details any) error {
	text, err := toJSON("details", details)
	if err != nil {
		return err
	}
	s.change.Details = types.Some(text)
	return nil
}

// References sets the sources the step found. The next Update, Done or Fail shows them.
func (s *Step) References(references []Reference) {
	s.change.References = witReferences(references)
}

// Update changes the text and leaves the step open. An empty text leaves the text unchanged.
func (s *Step) Update(text string) error {
	s.change.Text = optional(text)
	change := s.change
	s.change = log.Change{}
	return unwrapUnit("message-log.update", s.entry.Update(change))
}

// Done closes the step as done, with this text. An empty text leaves the text unchanged.
func (s *Step) Done(text string) error { return s.close(text, log.StatusCompleted) }

// Fail closes the step as failed, with this text. An empty text leaves the text unchanged. The delivery may still succeed.
func (s *Step) Fail(text string) error { return s.close(text, log.StatusFailed) }

// Close is for defer. A step that is neither done nor failed, because its function returned early or panicked, has failed. If the module
// continues, the step is closed as failed before the next step, or when the handler succeeds. If the handler fails, the host closes the
// step, because only the host knows whether it will retry. If the step is already done or failed, Close does nothing.
func (s *Step) Close() {
	if !s.closed {
		abandoned = append(abandoned, s)
	}
}

// abandoned has the steps that Close found neither done nor failed.
var abandoned []*Step

// closeAbandoned closes the abandoned steps as failed.
func closeAbandoned() error {
	for len(abandoned) > 0 {
		step := abandoned[0]
		abandoned = abandoned[1:]
		if step.closed {
			continue
		}
		if err := step.Fail(""); err != nil {
			return err
		}
	}
	return nil
}

// ID returns the platform's id of the step.
func (s *Step) ID() string { return s.entry.Id() }

func (s *Step) close(text string, status log.Status) error {
	s.change.Status = types.Some(status)
	if err := s.Update(text); err != nil {
		return err
	}
	s.closed = true
	return nil
}
