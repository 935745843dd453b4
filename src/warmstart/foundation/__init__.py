"""What every room stands on: settings, registries, errors for people, safe files, events and progress.

Nothing here knows about models; nothing here imports torch.
"""
