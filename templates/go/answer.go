// Package main answers a question from the passages that a search finds.
package main

import (
	"fmt"
	"strings"

	modhost "github.com/modhost/modhost/sdk-guest/go"
)

func init() { modhost.Answer(answer) }

// The host calls the function registered above, but every Go program needs a main function.
func main() {}

func answer(event modhost.ModuleChosen) error {
	question := event.UserMessage.Text
	hits, err := search(question)
	if err != nil {
		return err
	}
	if len(hits) == 0 {
		return modhost.Reply("I found nothing about that.").Complete()
	}
	text, err := write(question, hits)
	if err != nil {
		return err
	}
	return modhost.Reply(text).Citing(hits).Complete()
}

func search(question string) ([]modhost.Hit, error) {
	step, err := modhost.StartStep("Searching…")
	if err != nil {
		return nil, err
	}
	defer step.Close()
	hits, err := modhost.Search(modhost.Query{Text: question, Limit: 3})
	if err != nil {
		return nil, err
	}
	return hits, step.Done(fmt.Sprintf("Passages found: %d", len(hits)))
}

func write(question string, hits []modhost.Hit) (string, error) {
	step, err := modhost.StartStep("Writing the answer…")
	if err != nil {
		return "", err
	}
	defer step.Close()
	written, err := modhost.Complete(modhost.Completion{
		Messages: []modhost.Prompt{modhost.System(instructions(hits)), modhost.User(question)},
	})
	if err != nil {
		return "", err
	}
	return written.Text, step.Done("")
}

// instructions returns the prompt: the task and the passages, numbered for citations.
func instructions(hits []modhost.Hit) string {
	var text strings.Builder
	text.WriteString("Answer from these passages and from nothing else. Cite them as [source0], [source1] and so on.\n")
	for number, hit := range hits {
		fmt.Fprintf(&text, "\n<source%d>\n%s\n%s\n</source%d>\n", number, hit.Name(), hit.Text, number)
	}
	return text.String()
}
