package modhost

import (
	"encoding/json"
	"fmt"

	config "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wasi_config_store"
)

// Config returns a setting of the module: first those of the assistant that sent the event, then the module's config table in
// modules.toml. A string is returned unchanged, any other value as JSON. The second result reports whether it is set.
func Config(key string) (string, bool, error) {
	result := config.Get(key)
	if result.IsErr() {
		return "", false, configError("config.get", result.Err())
	}
	value := result.Ok()
	return value.SomeOr(""), value.IsSome(), nil
}

// ConfigInto unmarshals a setting into the value that value points to. If the setting isn't set, the value stays unchanged, so it can
// hold the default. A setting of another type is [ErrMisconfigured].
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
	if target, ok := value.(*string); ok {
		*target = text
		return nil
	}
	if err := json.Unmarshal([]byte(text), value); err != nil {
		text := fmt.Sprintf("setting `%s`: %v", key, err)
		return &Error{Call: "config.get", Kind: ErrMisconfigured, Text: text}
	}
	return nil
}

// ConfigAll returns all settings.
func ConfigAll() (map[string]string, error) {
	result := config.GetAll()
	if result.IsErr() {
		return nil, configError("config.get-all", result.Err())
	}
	all := make(map[string]string)
	for _, entry := range result.Ok() {
		all[entry.F0] = entry.F1
	}
	return all, nil
}

func configError(call string, wit config.Error) error {
	err := &Error{Call: call, Kind: ErrUnavailable}
	switch wit.Tag() {
	case config.ErrorUpstream:
		err.Text = wit.Upstream()
	default:
		err.Text = wit.Io()
	}
	return err
}
