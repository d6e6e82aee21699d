// Package main makes calls that the samples don't make: it streams answers and sends HTTP requests.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	modhost "github.com/modhost/modhost/sdk-guest/go"
	"github.com/modhost/modhost/sdk-guest/go/httpclient"
)

const rateURL, ordersURL = "https://rates.example.com/v1/chf-eur", "https://shop.example.com/orders"

func init() { modhost.Answer(answer) }

func main() {}

func answer(event modhost.ModuleChosen) error {
	switch event.UserMessage.Text {
	case "Tell", "Tell little":
		return tell(event.UserMessage.Text == "Tell little")
	case "Keep":
		return keep()
	case "Order":
		return order()
	case "Look":
		response, err := httpclient.Client.Get(rateURL)
		if err != nil {
			return err
		}
		if err := httpclient.OK(response); errors.Is(err, modhost.ErrNotFound) {
			return modhost.Reply(fmt.Sprintf("false %v", err)).Complete()
		}
		return errors.New("the request succeeded")
	case "Cancel":
		request, err := http.NewRequest(http.MethodDelete, ordersURL, nil)
		if err != nil {
			return err
		}
		if _, err = httpclient.Client.Do(request); errors.Is(err, modhost.ErrDenied) {
			return modhost.Reply(err.Error()).Complete()
		}
		return errors.New("the request is allowed")
	default:
		_, err := httpclient.Client.Get(rateURL)
		return err
	}
}

func tell(little bool) error {
	text := ""
	for piece, err := range modhost.Stream(modhost.Completion{Messages: []modhost.Prompt{modhost.User("a story")}}) {
		if err != nil {
			return err
		}
		text += piece
		if little {
			break
		}
		if err := modhost.Show(text); err != nil {
			return err
		}
	}
	return modhost.Reply(text).Complete()
}

func keep() error {
	store, err := modhost.OpenStore("asked")
	if err != nil {
		return err
	}
	if _, err := modhost.UpdateJSON(store, "texts", func(texts *[]string) error {
		*texts = append(*texts, "Keep")
		return nil
	}); err != nil {
		return err
	}
	times, err := store.Increment("times", 1)
	if err != nil {
		return err
	}
	swapped, err := store.CompareAndSwap("times", []byte("1"), []byte("5"))
	if err != nil {
		return err
	}
	return modhost.Reply(fmt.Sprint(times, " ", swapped)).Complete()
}

func order() error {
	client := http.Client{Transport: httpclient.Transport{}, Timeout: 5 * time.Second}
	request, err := http.NewRequest(http.MethodGet, rateURL+"?day=to+day", nil)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "application/json")
	answered, err := client.Do(request)
	if err != nil {
		return err
	}
	var rate struct{ Value float64 }
	if err := json.NewDecoder(answered.Body).Decode(&rate); err != nil {
		return err
	}
	body, err := json.Marshal(map[string]string{"item": "A-17", "note": strings.Repeat("é", 3000)})
	if err != nil {
		return err
	}
	placed, err := client.Post(ordersURL, "application/json", strings.NewReader(string(body)))
	if err != nil {
		return err
	}
	text, err := io.ReadAll(placed.Body)
	if err != nil {
		return err
	}
	reply := fmt.Sprint(rate.Value, " ", placed.StatusCode, " ", placed.Header.Get("Location"), " ", string(text))
	return modhost.Reply(reply).Complete()
}
