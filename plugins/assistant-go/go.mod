module assistant

go 1.26

require github.com/modhost/modhost/sdk-guest/go v0.1.0

// The SDK in this repository. Omit this line in your own module.
replace github.com/modhost/modhost/sdk-guest/go => ../../sdk-guest/go
