module asks

go 1.26

require github.com/modhost/modhost/sdk-guest/go v0.1.0

replace github.com/modhost/modhost/sdk-guest/go => ../../../../../sdk-guest/go
