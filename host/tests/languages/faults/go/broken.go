// Package main is a module that panics.
package main

import modhost "github.com/modhost/modhost/sdk-guest/go"

func init() { modhost.Answer(answer) }

func main() {}

func answer(event modhost.ModuleChosen) error {
	step, err := modhost.StartStep("Breaking…")
	if err != nil {
		return err
	}
	defer step.Close()
	text := event.UserMessage.Text
	return step.Done(string(letter(text, len(text))))
}

//go:noinline
func letter(text string, at int) byte { return text[at] }
