module assistant

go 1.26

require github.com/modhost/modhost/sdk-guest/go v0.1.0

// Where the SDK lies in this repository. In a module of your own, leave this line out.
replace github.com/modhost/modhost/sdk-guest/go => ../../sdk-guest/go
