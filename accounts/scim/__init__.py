"""SCIM 2.0 (RFC 7643, 7644): a company's directory says who its people are and who has left.

It speaks through scim2-models; what it may do is docs/scim.md.
"""
