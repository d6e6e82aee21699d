package modhost

import (
	"encoding/json"
	"fmt"

	config "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wasi_config_store"
)

// Config reads a setting of the module: first those of the assistant the event comes from, then the config table of the
// module in modules.toml. Text is given as it is, any other value as JSON. The second result tells whether it is set.
func Config(key string) (string, bool, error) {
	result := config.Get(key)
	if result.IsErr() {
		return "", false, unreadable("config.get", result.Err())
	}
	value := result.Ok()
	return value.SomeOr(""), value.IsSome(), nil
}

// ConfigInto reads a setting into what value points to, from JSON; one that isn't set leaves it as it is, so that it can
// hold the default. A setting of another kind is [ErrMisconfigured].
//
//	limit := 5
//	if err := modhost.ConfigInto("limit", &limit); err != nil {
//		return err
//	}
func ConfigInto(key string, value any) error {
	text, set, err := Config(key)
	if err != nil || !set {
		return err
	}
	if into, is := value.(*string); is {
		*into = text
		return nil
	}
	if err := json.Unmarshal([]byte(text), value); err != nil {
		what := fmt.Sprintf("the setting `%s` isn't what the module expects: %v", key, err)
		return &Error{Call: "config.get", Kind: ErrMisconfigured, Text: what}
	}
	return nil
}

// ConfigAll reads all settings.
func ConfigAll() (map[string]string, error) {
	result := config.GetAll()
	if result.IsErr() {
		return nil, unreadable("config.get-all", result.Err())
	}
	all := make(map[string]string)
	for _, entry := range result.Ok() {
		all[entry.F0] = entry.F1
	}
	return all, nil
}

func unreadable(call string, wit config.Error) error {
	err := &Error{Call: call, Kind: ErrUnavailable}
	switch wit.Tag() {
	case config.ErrorUpstream:
		err.Text = wit.Upstream()
	default:
		err.Text = wit.Io()
	}
	return err
}
