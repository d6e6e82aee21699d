module my-module

go 1.26

require github.com/modhost/modhost/sdk-guest/go v0.1.0

// The SDK in this folder. Without this line, Go downloads it.
replace github.com/modhost/modhost/sdk-guest/go => ./sdk
